// The tokenizer that a run's checkpoints carry: the one its token file was made with, or that of init.from.
#pragma once

#include <string>

#include "core/base/status.h"
#include "data/loader.h"

namespace moebius {

struct TokenizerFiles {
  std::string tokenizer_json;         // "" where unknown
  std::string tokenizer_config_json;  // what transformers' AutoTokenizer wants beside it
};

absl::StatusOr<TokenizerFiles> FindTokenizer(const Loader& loader, const std::string& init_from);

}  // namespace moebius
