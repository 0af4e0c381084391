// A tokenizer made by hand for the tests of data/: the 256 bytes, "th", "the", and special tokens.
#pragma once

#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace moebius {

// Ids 0-255 are the bytes in value order, 256 "th", 257 "the", then `special` in order.
Tokenizer SmallTokenizer(const std::vector<std::string>& special);
inline constexpr int32_t kFirstSpecialId = 258;

}  // namespace moebius
