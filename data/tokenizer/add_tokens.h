// More special tokens for a tokenizer that exists: a chat template's markers, "<think>", "<answer>".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace moebius {

// `tokenizer_json` with every name as a special added token, at the ids that follow the highest one, in the
// order given; all others keep their ids. A name that is an added token stays as it is; one that is a token
// of the vocabulary becomes special under its id, as in Hugging Face. The model needs a row for each new id
// (LoadOptions::first_new_token). UsageError for a name that is empty, not UTF-8 or given twice; DamagedError
// naming `source` for a file that Tokenizer::FromJson refuses.
absl::StatusOr<std::string> AddTokens(std::string_view tokenizer_json, const std::vector<std::string>& names,
                                      const std::string& source);

}  // namespace moebius
