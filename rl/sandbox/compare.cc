#include "rl/sandbox/compare.h"

namespace moebius::sandbox {
namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// The first line, cut off from *text; *done after the last one.
std::string_view NextLine(std::string_view* text, bool* done) {
  const size_t end = text->find('\n');
  const std::string_view line = text->substr(0, end);
  *done = end == std::string_view::npos;
  if (!*done) text->remove_prefix(end + 1);
  return Trim(line);
}

}  // namespace

bool SameText(std::string_view expected, std::string_view actual) {
  expected = Trim(expected);
  actual = Trim(actual);
  while (true) {
    bool expected_done, actual_done;
    if (NextLine(&expected, &expected_done) != NextLine(&actual, &actual_done)) return false;
    if (expected_done != actual_done) return false;
    if (expected_done) return true;
  }
}

}  // namespace moebius::sandbox
