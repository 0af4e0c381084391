#include "launch/train/tokenizer_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "core/model/model_folder.h"
#include "core/model/weights.h"
#include "data/special_tokens.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {
namespace {

absl::StatusOr<std::string> MakeConfig(const std::string& tokenizer_json, const std::string& source) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::FromJson(tokenizer_json, source));
  nlohmann::ordered_json o;
  o["tokenizer_class"] = "PreTrainedTokenizerFast";
  const std::vector<std::string> built_in = BuiltInSpecialTokens();  // begin, end, padding, ...
  if (const auto bos = FindBeginOfDocument(tokenizer))
    o["bos_token"] = std::string(tokenizer.TokenBytes(*bos));
  if (const auto eos = FindEndOfDocument(tokenizer)) o["eos_token"] = std::string(tokenizer.TokenBytes(*eos));
  if (tokenizer.TokenToId(built_in[2])) o["pad_token"] = built_in[2];
  return DumpJson(o, 2) + "\n";
}

}  // namespace

absl::StatusOr<TokenizerFiles> TokenizerFilesFrom(std::string tokenizer_json, const std::string& source,
                                                  const std::string& init_from) {
  TokenizerFiles files;
  files.tokenizer_json = std::move(tokenizer_json);
  const std::string config = JoinPath(init_from, "tokenizer_config.json");
  const std::string chat = JoinPath(init_from, "chat_template.jinja");
  if (!init_from.empty() && FileExists(config)) {
    ASSIGN_OR_RETURN(files.tokenizer_config_json, ReadFile(config, int64_t{16} << 20));
  } else {
    ASSIGN_OR_RETURN(files.tokenizer_config_json, MakeConfig(files.tokenizer_json, source));
  }
  if (!init_from.empty() && FileExists(chat)) {
    ASSIGN_OR_RETURN(files.chat_template_jinja, ReadFile(chat, int64_t{16} << 20));
  }
  if (!init_from.empty() && FileExists(JoinPath(init_from, "config.json"))) {
    ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(init_from));
    ASSIGN_OR_RETURN(files.end_ids, EndOfTextIds(init_from, config));
  }
  return files;
}

absl::StatusOr<TokenizerFiles> FindTokenizer(const Loader& loader, const std::string& init_from) {
  std::string json = loader.file(0).info().tokenizer_json;
  std::string source = loader.file(0).path() + ": /tokenizer_json";
  if (json.empty() && !init_from.empty()) {
    source = JoinPath(init_from, "tokenizer.json");
    if (FileExists(source)) {
      ASSIGN_OR_RETURN(json, ReadFile(source, int64_t{256} << 20));
    }
  }
  if (json.empty()) return TokenizerFiles();
  return TokenizerFilesFrom(std::move(json), source, init_from);
}

absl::Status CheckSameTokenizer(const std::string& json, const std::string& source,
                                const std::string& folder) {
  const std::string path = JoinPath(folder, "tokenizer.json");
  if (json.empty() || folder.empty() || !FileExists(path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string other, ReadFile(path, int64_t{256} << 20));
  if (other == json) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Tokenizer a, Tokenizer::FromJson(json, source));
  ASSIGN_OR_RETURN(const Tokenizer b, Tokenizer::FromJson(other, path));
  int32_t id = 0;
  const int32_t size = std::min(a.vocab_size(), b.vocab_size());
  while (id < size && a.TokenBytes(id) == b.TokenBytes(id)) ++id;
  if (id == size && a.vocab_size() == b.vocab_size()) {
    ASSIGN_OR_RETURN(const TokenizerSpec first, ParseTokenizerJson(json, source));
    ASSIGN_OR_RETURN(const TokenizerSpec second, ParseTokenizerJson(other, path));
    const std::string_view field = FirstDifference(first, second);
    if (field.empty()) return absl::OkStatus();
    return UsageError(Concat(source, " has another tokenizer than ", path, ": the same tokens, but another ",
                             field, ", so that it cuts texts differently; build the data with --tokenizer ",
                             path, ", or start a run of its own"));
  }
  return UsageError(Concat(source, " has another tokenizer than ", path, " (", a.vocab_size(), " and ",
                           b.vocab_size(), " tokens, the first difference at id ", id,
                           "); the model knows ids of the one only; build the data with --tokenizer ", path,
                           ", or start a run of its own"));
}

}  // namespace moebius
