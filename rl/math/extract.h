// The final answer in a model's text. Where: behind the last </think>; the last <answer>...</answer>, else
// the last \boxed{...}, else what follows the last "final answer is". Boxes joined by "or", "and" or a comma
// are one list: who boxes two candidates side by side has given two answers. Earlier boxes elsewhere are
// working.
#pragma once

#include <string>
#include <string_view>

namespace moebius::math {

struct Extracted {
  bool found = false;
  std::string answer = {};  // as written
  std::string where = {};   // "answer tag", "box", "phrase"; not found: the reason
};

Extracted ExtractAnswer(std::string_view text);

// The last \boxed{...} anywhere in `text`, those joined to it included; else not found.
Extracted ExtractBox(std::string_view text);

}  // namespace moebius::math
