// Answers that are no expressions: lettered choices, times of day, words that stand for mathematics.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "rl/math/equivalence.h"

namespace moebius::math {

// A letter A to J with what follows it: "(B) 12" is B with "12".
struct Choice {
  char letter = 0;
  bool marked = false;   // in brackets, or with a point or bracket behind it: not just a letter
  bool certain = false;  // said to be one, or with a bracket: "D: x > 3" may be a function or a point as well
  bool hedged = false;   // another choice is named behind it
  std::string content = {};
};
std::optional<Choice> ReadChoice(std::string_view ascii);

// Minutes since midnight with seconds: "3:05", "15:30:10", "3 pm", "noon".
struct Clock {
  int hours = 0, minutes = 0, seconds = 0;
  bool certain = false;   // no ratio: am or pm, or a leading zero
  bool has_half = false;  // am or pm was said; hours are then 0 to 23
};
std::optional<Clock> ReadClock(std::string_view ascii);
GradeResult CompareClocks(const Clock& a, const Clock& b);

// "no solution" is "\emptyset", "seven" is "7"; other texts come back as they are.
std::string ReplaceKnownWords(std::string_view ascii);

}  // namespace moebius::math
