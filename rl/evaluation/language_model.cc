#include "rl/evaluation/language_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"

namespace moebius {
namespace {

absl::StatusOr<std::vector<int32_t>> EndOfTextIds(const std::string& folder, const ModelConfig& config) {
  std::vector<int32_t> ids;
  if (config.eos_token_id >= 0) ids.push_back(static_cast<int32_t>(config.eos_token_id));
  const std::string path = JoinPath(folder, "generation_config.json");
  if (!FileExists(path)) return ids;
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path, int64_t{1} << 20));
  if (!HasJsonField(json, "eos_token_id")) return ids;
  std::vector<int64_t> more;
  if (json["eos_token_id"].is_array()) {
    ASSIGN_OR_RETURN(more, GetIntArray(json, "eos_token_id", path, 0, config.vocab_size - 1));
  } else {
    ASSIGN_OR_RETURN(more.emplace_back(), GetInt(json, "eos_token_id", path, 0, config.vocab_size - 1));
  }
  ids.insert(ids.end(), more.begin(), more.end());
  return ids;
}

// The marker that ends an answer in a conversation, if the template has one.
absl::StatusOr<std::optional<int32_t>> EndOfAnswerId(const Tokenizer& tokenizer, const ChatTemplate& chat) {
  ASSIGN_OR_RETURN(const EncodedChat encoded,
                   EncodeChat(tokenizer, chat, {{"user", "a"}, {"assistant", "b"}}, GenerationPrompt::kNone));
  for (size_t i = encoded.ids.size(); i-- > 0;)
    if (encoded.is_answer[i])
      return tokenizer.IsSpecial(encoded.ids[i]) ? std::optional(encoded.ids[i]) : std::nullopt;
  return std::optional<int32_t>();
}

absl::StatusOr<DType> ComputeType(const std::string& choice, const std::string& folder) {
  if (choice == "fp32") return DType::kF32;
  if (choice == "bf16") return DType::kBF16;
  ASSIGN_OR_RETURN(const nlohmann::json json,
                   ReadJsonFile(JoinPath(folder, "config.json"), int64_t{16} << 20));
  for (const char* field : {"dtype", "torch_dtype"})
    if (HasJsonField(json, field) && json[field].is_string())
      return json[field] == "float32" ? DType::kF32 : DType::kBF16;
  return DType::kF32;
}

}  // namespace

absl::StatusOr<std::optional<ChatTemplate>> ChatTemplateOfFlag(const std::string& folder,
                                                               const std::string& choice) {
  if (choice == "none") return std::optional<ChatTemplate>();
  if (choice != "auto") {
    ASSIGN_OR_RETURN(ChatTemplate chat, ChatTemplateByName(choice));
    return std::optional(std::move(chat));
  }
  absl::StatusOr<ChatTemplate> chat = LoadChatTemplate(folder);
  if (chat.ok()) return std::optional(*std::move(chat));
  if (ExitCode(chat.status()) == kExitMissing) return std::optional<ChatTemplate>();
  return chat.status();
}

absl::StatusOr<std::unique_ptr<LanguageModel>> LanguageModel::Load(const std::string& folder,
                                                                   const LanguageModelOptions& options) {
  // What is cheap and may be missing first.
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(folder));
  ASSIGN_OR_RETURN(const DType act, ComputeType(options.compute, folder));
  ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(folder));
  std::unique_ptr<LanguageModel> out(new LanguageModel(std::move(tokenizer)));
  out->chat_ = options.chat;
  ASSIGN_OR_RETURN(out->stop_ids_, EndOfTextIds(folder, config));
  if (options.chat) {
    ASSIGN_OR_RETURN(const std::optional<int32_t> end, EndOfAnswerId(out->tokenizer_, *options.chat));
    if (end) out->stop_ids_.push_back(*end);
  }
  ASSIGN_OR_RETURN(out->backend_, MakeBackend(options.device));
  out->stream_ = out->backend_->NewStream(StreamKind::kCompute);
  ModelOptions model_options;
  model_options.storage = {.act = act, .training = false};
  model_options.mtp = false;
  ASSIGN_OR_RETURN(out->loaded_, LoadModel(folder, *out->backend_, *out->stream_, model_options));
  out->decoder_ =
      std::make_unique<Decoder>(*out->loaded_.model, *out->backend_, *out->stream_, DecoderOptions{});
  return out;
}

absl::StatusOr<std::vector<int32_t>> LanguageModel::TextPrompt(std::string_view text) const {
  std::vector<int32_t> ids = tokenizer_.Encode(text, {.parse_special = false, .add_special = true});
  const int64_t start = config().bos_token_id >= 0 ? config().bos_token_id : config().eos_token_id;
  if (ids.empty() && start >= 0) ids.push_back(static_cast<int32_t>(start));
  if (ids.empty()) {
    return UsageError(
        "the prompt is empty and the model has neither bos_token_id nor eos_token_id to start from; "
        "give it some text");
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> LanguageModel::ChatPrompt(
    const std::vector<ChatMessage>& messages) const {
  if (!chat_) {
    return UsageError(
        Concat("the model has no chat template; it continues texts only; choose a template with --chat: ",
               Join(ChatTemplateNames())));
  }
  ASSIGN_OR_RETURN(EncodedChat encoded, EncodeChat(tokenizer_, *chat_, messages, GenerationPrompt::kAdd));
  return std::move(encoded.ids);
}

}  // namespace moebius
