#include "data/tokenizer/gguf_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/json.h"
#include "data/tokenizer/token_index.h"

namespace moebius {
namespace {

// Values of tokenizer.ggml.token_type.
constexpr int64_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5;

// What a value of tokenizer.ggml.pre says beyond its expression.
struct GgufPre {
  std::string_view name;
  PreTokenizerKind kind;
  bool normalize_nfc, ignore_merges, add_bos;
};
constexpr GgufPre kGgufPres[] = {
    {"smollm", PreTokenizerKind::kSmolLm, false, false, false},
    {"gpt-2", PreTokenizerKind::kGpt2, false, false, false},
    {"llama-bpe", PreTokenizerKind::kLlama3, false, true, true},
    {"llama3", PreTokenizerKind::kLlama3, false, true, true},
    {"qwen2", PreTokenizerKind::kQwen2, true, false, false},
    {"deepseek-v3", PreTokenizerKind::kDeepSeekV3, false, false, false},
};

absl::Status WrongKey(const GgufFile& file, std::string_view key, const std::string& what) {
  return DamagedError(Concat(file.path(), ": key ", key, " ", what, "; the file is damaged; fetch it again"));
}

absl::StatusOr<GgufPre> FindPre(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string model, file.GetString("tokenizer.ggml.model"));
  ASSIGN_OR_RETURN(const std::string pre, file.GetStringOr("tokenizer.ggml.pre", ""));
  std::vector<std::string> names;
  for (const GgufPre& known : kGgufPres) {
    if (model == "gpt2" && pre == known.name) return known;
    names.emplace_back(known.name);
  }
  return UsageError(Concat(file.path(), ": tokenizer.ggml.model \"", Printable(model),
                           "\" with tokenizer.ggml.pre \"", Printable(pre),
                           "\" is not supported; supported: gpt2 with ", Join(names),
                           "; import the model's Hugging Face folder"));
}

absl::Status ReadTokens(const GgufFile& file, TokenizerSpec* spec) {
  constexpr std::string_view kTokens = "tokenizer.ggml.tokens", kTypes = "tokenizer.ggml.token_type";
  ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, file.GetStrings(kTokens));
  ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.GetInts(kTypes));
  if (tokens.empty() || std::ssize(tokens) > int64_t{kMaxTokenId} + 1) {
    return WrongKey(file, kTokens, Concat("has ", tokens.size(), " tokens"));
  }
  if (types.size() != tokens.size()) {
    return WrongKey(file, kTypes, Concat("has ", types.size(), " entries for ", tokens.size(), " tokens"));
  }
  for (size_t id = 0; id < tokens.size(); ++id) {
    const int64_t type = types[id];
    if (tokens[id].empty()) return WrongKey(file, kTokens, Concat("has an empty token, id ", id));
    if (type != kNormal && type != kUnknown && type != kControl && type != kUserDefined && type != kUnused) {
      return WrongKey(file, kTypes,
                      Concat("gives id ", id, " the type ", type, ", which byte-level BPE has not"));
    }
    spec->vocab.emplace_back(tokens[id]);
    if (type == kControl || type == kUserDefined) {
      spec->added_tokens.push_back(
          {.id = static_cast<int32_t>(id), .content = spec->vocab.back(), .special = type == kControl});
    }
  }
  return absl::OkStatus();
}

absl::Status ReadGgufMerges(const GgufFile& file, TokenizerSpec* spec) {
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  ASSIGN_OR_RETURN(const std::vector<std::string_view> merges, file.GetStrings(kMerges));
  const TokenIndex index(spec->vocab);
  if (const int32_t id = index.duplicate(); id >= 0) {
    return WrongKey(file, "tokenizer.ggml.tokens", Concat("has \"", Printable(spec->vocab[id]), "\" twice"));
  }
  for (const std::string_view merge : merges) {
    const size_t blank = merge.find(' ', 1);  // the byte-level alphabet has no blank
    if (blank == std::string_view::npos) {
      return WrongKey(file, kMerges, Concat("has \"", Printable(merge), "\", which is not two tokens"));
    }
    const std::string_view left = merge.substr(0, blank), right = merge.substr(blank + 1);
    const TokenizerSpec::Merge ids = {index.Find(left), index.Find(right), index.Find(Concat(left, right))};
    if (ids.left < 0 || ids.right < 0 || ids.result < 0) {
      return WrongKey(file, kMerges, Concat("has \"", Printable(merge), "\", of tokens that are not there"));
    }
    spec->merges.push_back(ids);
  }
  return absl::OkStatus();
}

// The token that a key such as "tokenizer.ggml.bos_token_id" names; -1 without the key.
absl::StatusOr<int32_t> NamedToken(const GgufFile& file, const TokenizerSpec& spec, const std::string& name) {
  ASSIGN_OR_RETURN(const int64_t id, file.GetIntOr(Concat("tokenizer.ggml.", name, "_token_id"), -1, 0,
                                                   std::ssize(spec.vocab) - 1));
  return static_cast<int32_t>(id);
}

// Puts the begin or end token around texts where the file asks for it.
absl::Status ReadAround(const GgufFile& file, const std::string& name, bool otherwise,
                        const TokenizerSpec& spec, std::vector<int32_t>* ids) {
  const std::string key = Concat("tokenizer.ggml.add_", name, "_token");
  ASSIGN_OR_RETURN(const bool add, file.GetBoolOr(key, otherwise));
  if (!add) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int32_t id, NamedToken(file, spec, name));
  if (id < 0)
    return WrongKey(file, key, Concat("is set, and there is no tokenizer.ggml.", name, "_token_id"));
  ids->push_back(id);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> TokenizerFromGguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const GgufPre pre, FindPre(file));
  TokenizerSpec spec;
  spec.pre_tokenizer = pre.kind;
  spec.normalize_nfc = pre.normalize_nfc;
  spec.ignore_merges = pre.ignore_merges;
  ASSIGN_OR_RETURN(spec.add_prefix_space, file.GetBoolOr("tokenizer.ggml.add_space_prefix", false));
  RETURN_IF_ERROR(ReadTokens(file, &spec));
  RETURN_IF_ERROR(ReadGgufMerges(file, &spec));
  RETURN_IF_ERROR(ReadAround(file, "bos", pre.add_bos, spec, &spec.prefix_ids));
  RETURN_IF_ERROR(ReadAround(file, "eos", false, spec, &spec.suffix_ids));
  return spec;
}

absl::StatusOr<std::map<std::string, std::string>> TokenizerFilesFromGguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const TokenizerSpec spec, TokenizerFromGguf(file));
  std::map<std::string, std::string> files;
  files["tokenizer.json"] = WriteTokenizerJson(spec);
  RETURN_IF_ERROR(
      ParseTokenizerJson(files["tokenizer.json"], Concat(file.path(), " (as tokenizer.json)")).status());

  nlohmann::ordered_json config;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  config["add_bos_token"] = !spec.prefix_ids.empty();
  config["add_eos_token"] = !spec.suffix_ids.empty();
  constexpr std::pair<const char*, const char*> kNamed[] = {
      {"bos", "bos_token"}, {"eos", "eos_token"}, {"unknown", "unk_token"}, {"padding", "pad_token"}};
  for (const auto& [name, field] : kNamed) {
    ASSIGN_OR_RETURN(const int32_t id, NamedToken(file, spec, name));
    if (id >= 0) config[field] = spec.vocab[id];
  }
  ASSIGN_OR_RETURN(const int64_t context, file.GetIntOr("llama.context_length", 0));
  if (context > 0) config["model_max_length"] = context;
  ASSIGN_OR_RETURN(const std::string chat, file.GetStringOr("tokenizer.chat_template", ""));
  if (!chat.empty()) {
    config["chat_template"] = chat;
    files["chat_template.jinja"] = chat;
  }
  files["tokenizer_config.json"] = DumpJson(config, 2) + "\n";
  // What ends a turn, where that is another token than what ends a document.
  nlohmann::ordered_json ends = nlohmann::ordered_json::array();
  for (const char* name : {"eos", "eot", "eom"}) {
    ASSIGN_OR_RETURN(const int32_t id, NamedToken(file, spec, name));
    if (id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
  if (ends.size() > 1)
    files["generation_config.json"] = DumpJson(nlohmann::ordered_json{{"eos_token_id", ends}}, 2) + "\n";
  return files;
}

}  // namespace moebius
