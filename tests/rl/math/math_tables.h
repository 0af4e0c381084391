// Tables of cases: gold, answer, expected, class, separated by tabs.
#pragma once

#include <string>
#include <vector>

namespace moebius::math {

struct Case {
  std::string gold, answer, expected, kind;
};
// Reads a table; a damaged line fails the running test.
std::vector<Case> ReadCases(const std::string& path);

struct Score {
  int total = 0, right = 0, false_equal = 0, false_different = 0, undecided = 0;
  double p99_ms = 0, max_ms = 0;
  std::string wrong;  // one line a case that was not right, with the grader's reason
};
Score Judge(const std::vector<Case>& cases);

}  // namespace moebius::math
