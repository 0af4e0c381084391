// The value of an arithmetic expression over given numbers, for countdown. The language is exactly
//   sum     = product { ("+" | "-") product }
//   product = atom { ("*" | "/") atom }
//   atom    = number | "(" sum ")"
// with decimal numbers without leading zeros and blanks between symbols: no sign before a number, no
// decimal point, no ** or //, no product without *, no numbers glued from digits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moebius {

// num / den in lowest terms, den > 0.
struct Fraction {
  __int128 num = 0;
  __int128 den = 1;
};

struct ExpressionRules {
  std::span<const int64_t> numbers;  // each usable as often as it is listed; at most 6, in [1, 999]
  bool division = false;
};

// Exact. nullopt for text outside the language, a number that is not given or used too often, division by
// zero, or parentheses nested more than 50 deep.
std::optional<Fraction> EvaluateExpression(std::string_view text, const ExpressionRules& rules);

}  // namespace moebius
