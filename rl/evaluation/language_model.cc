#include "rl/evaluation/language_model.h"

#include "core/base/strings.h"
#include "core/model/model_folder.h"

namespace moebius {
namespace {

// The marker that ends an answer in a conversation, if the template has one.
absl::StatusOr<std::optional<int32_t>> EndOfAnswerId(const Tokenizer& tokenizer, const ChatTemplate& chat) {
  ASSIGN_OR_RETURN(const EncodedChat encoded,
                   EncodeChat(tokenizer, chat, {{"user", "a"}, {"assistant", "b"}}, GenerationPrompt::kNone));
  for (size_t i = encoded.ids.size(); i-- > 0;)
    if (encoded.is_answer[i])
      return tokenizer.IsSpecial(encoded.ids[i]) ? std::optional(encoded.ids[i]) : std::nullopt;
  return std::optional<int32_t>();
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
  ASSIGN_OR_RETURN(const DType act, ComputeTypeOf(options.compute, folder));
  ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(folder));
  std::unique_ptr<LanguageModel> out(new LanguageModel(std::move(tokenizer)));
  out->chat_ = options.chat;
  ASSIGN_OR_RETURN(out->stop_ids_, EndOfTextIds(folder, config));
  if (options.chat) {
    ASSIGN_OR_RETURN(const std::optional<int32_t> end, EndOfAnswerId(out->tokenizer_, *options.chat));
    if (end) out->stop_ids_.push_back(*end);
  }
  ASSIGN_OR_RETURN(out->backend_, MakeBackend(options.device));
  if (options.int8) RETURN_IF_ERROR(DecodeWeights::CheckInt8(*out->backend_));
  out->stream_ = out->backend_->NewStream(StreamKind::kCompute);
  ModelOptions model_options;
  model_options.storage = {.act = act, .training = false};
  model_options.mtp = false;
  model_options.positions_on_demand = true;
  ASSIGN_OR_RETURN(out->loaded_, LoadModel(folder, *out->backend_, *out->stream_, model_options));
  out->decoder_ = std::make_unique<Decoder>(*out->loaded_.model, *out->backend_, *out->stream_,
                                            DecoderOptions{.int8 = options.int8});
  return out;
}

absl::StatusOr<std::vector<int32_t>> LanguageModel::TextPrompt(std::string_view text) const {
  RETURN_IF_ERROR(tokenizer_.CheckNothingIsLost(text, {.parse_special = false}));
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
  for (const ChatMessage& message : messages)
    RETURN_IF_ERROR(tokenizer_.CheckNothingIsLost(message.content, {.parse_special = false}));
  ASSIGN_OR_RETURN(EncodedChat encoded, EncodeChat(tokenizer_, *chat_, messages, GenerationPrompt::kAdd));
  return std::move(encoded.ids);
}

}  // namespace moebius
