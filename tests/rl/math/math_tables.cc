#include "tests/rl/math/math_tables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "core/base/strings.h"
#include "rl/math/equivalence.h"

namespace moebius::math {

std::vector<Case> ReadCases(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::vector<Case> cases;
  for (std::string line; std::getline(in, line);) {
    std::vector<std::string> fields;
    size_t begin = 0;
    for (size_t tab = line.find('\t'); tab != std::string::npos; tab = line.find('\t', begin)) {
      fields.push_back(line.substr(begin, tab - begin));
      begin = tab + 1;
    }
    fields.push_back(line.substr(begin));
    EXPECT_EQ(fields.size(), 4u) << path << ": " << Printable(line);
    fields.resize(4);
    cases.push_back({fields[0], fields[1], fields[2], fields[3]});
  }
  return cases;
}

Score Judge(const std::vector<Case>& cases) {
  Score score;
  std::vector<double> times_ms;
  for (const Case& c : cases) {
    const auto start = std::chrono::steady_clock::now();
    const GradeResult result = Grade(c.gold, c.answer);
    times_ms.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    const std::string outcome(OutcomeName(result.outcome));
    EXPECT_FALSE(result.reason.empty()) << c.gold << " | " << c.answer;
    ++score.total;
    if (outcome == c.expected) {
      ++score.right;
      continue;
    }
    score.false_equal += outcome == "equal";
    score.false_different += outcome == "different";
    score.undecided += outcome == "undecided";
    score.wrong += Concat(c.kind, ": ", Printable(c.gold), " | ", Printable(c.answer), " is ", outcome, " (",
                          result.reason, ")\n");
  }
  std::sort(times_ms.begin(), times_ms.end());
  if (!times_ms.empty()) {
    score.p99_ms = times_ms[static_cast<size_t>(0.99 * static_cast<double>(times_ms.size() - 1) + 0.5)];
    score.max_ms = times_ms.back();
  }
  return score;
}

}  // namespace moebius::math
