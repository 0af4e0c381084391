// Numbers as written: thousands separators, repeating decimals, scientific notation, digits with a base.
#pragma once

#include <string_view>

#include "rl/math/lexer.h"

namespace moebius::math {

// Reads a number at the start of `text` into `token`; returns how many bytes it took, 0 if none begins there.
// `commas`: 1,000 is one number.
size_t LexNumber(std::string_view text, bool commas, Token* token);
// Digits with a base as index, "1A_{16}" or "1011_2", letters included; 0 if none begins there.
size_t LexBasedNumber(std::string_view text, Token* token);

// Whether the content of \text{...} is a number: \text{5}, \mathrm{-2.5}.
bool IsNumeric(std::string_view text);
// Whether that of \mathbf{...} is mathematics without a word: \mathbf{3}, \boldsymbol{x+1}.
bool IsMathematics(std::string_view text);

}  // namespace moebius::math
