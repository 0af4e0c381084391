// From verdicts to the figures of a benchmark: pass@1, pass@k, cons@k, each with its interval.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rl/evaluation/benchmark.h"
#include "rl/objective/estimates.h"

namespace moebius {

// Of the classes of equal answers, one with the most votes; among several such, the one reached first, which
// is the one whose first member comes first. Index of that first member; nullopt where nobody votes. Samples
// without an answer have no vote.
std::optional<size_t> MajorityAnswer(const std::vector<Graded>& samples,
                                     const std::function<bool(std::string_view a, std::string_view b)>& same);

// An estimate over problems and their number.
struct Figure {
  Estimate estimate;
  int64_t problems = 0;
};

struct Tally {
  int64_t problems = 0;  // all, also those whose every sample is undecided
  int64_t samples = 0;
  int64_t right = 0, wrong = 0, no_answer = 0, undecided = 0;  // add up to `samples`
  Figure pass_at_1;  // mean over problems of the share of right ones among decided samples
  // For 2, 4, 8, ... and the number of samples: over the problems with as many decided samples. Empty for one
  // sample.
  std::vector<std::pair<int64_t, Figure>> pass_at;
  // Of the majority's answer, over the problems where it is decided; no votes at all is wrong. Absent for one
  // sample or answers that cannot vote.
  std::optional<Figure> cons;
  std::optional<Figure> dense;  // mean dense score, where graded
  // pass@1 of each subject, in order of first appearance; empty where there are none.
  std::vector<std::pair<std::string, Figure>> subjects;
};

// `verdicts[i]` are the samples of question i, equally many for all. `grader` may be null: no votes.
Tally TallyVerdicts(const std::vector<Question>& questions, const std::vector<std::vector<Graded>>& verdicts,
                    const Grader* grader);

// "31.2 +- 4.5" in percent; where every problem scored alike, and so the normal approximation says nothing,
// the rule of three: "0.0 (below 6.0)", "100.0 (above 94.0)"; "-" without problems.
std::string PercentText(const Figure& figure);

}  // namespace moebius
