// The tokenizer that a run's checkpoints carry: the one its token file was made with, or that of init.from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/loader.h"

namespace moebius {

struct TokenizerFiles {
  std::string tokenizer_json;         // "" where unknown
  std::string tokenizer_config_json;  // what transformers' AutoTokenizer wants beside it
  std::string chat_template_jinja;    // as `init_from` has it, "" where it has none
  std::vector<int32_t> end_ids;       // that end a text, of `init_from`
};

// With this tokenizer.json (`source` is what messages call it) and what lies beside it in the model folder
// `init_from`, "" for none.
absl::StatusOr<TokenizerFiles> TokenizerFilesFrom(std::string tokenizer_json, const std::string& source,
                                                  const std::string& init_from);

absl::StatusOr<TokenizerFiles> FindTokenizer(const Loader& loader, const std::string& init_from);

// UsageError unless the folder's tokenizer.json gives every id the token that `json` (of `source`) gives it;
// ids of another tokenizer are other text. OK where one of the two is not known.
absl::Status CheckSameTokenizer(const std::string& json, const std::string& source,
                                const std::string& folder);

}  // namespace moebius
