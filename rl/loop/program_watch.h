// What judged programs say of their judge: verdicts that change when a program runs once more, and answers
// that pass the tests that their prompt shows and fail the others.
#pragma once

#include <limits>
#include <span>

#include "rl/loop/rollout.h"
#include "rl/loop/step_source.h"
#include "rl/problems/problem.h"

namespace moebius {

class ProgramWatch {
 public:
  // A warning of changing verdicts comes at most once in so many steps.
  static constexpr int64_t kQuietSteps = 20;

  // `problems` is borrowed.
  explicit ProgramWatch(const ProblemSet& problems) : problems_(problems) {}

  // Adds to the report of a step (its metrics are set) what holds for these samples, of all ranks:
  //   rl/judged_twice        samples that were judged twice, where there are any
  //   rl/flaky_verdicts      share of them whose second judgement was another; with it a warning that names
  //                          problems
  //   rl/visible_hidden_gap  share of right answers by visible tests alone less that by all tests, of samples
  //                          that have both kinds; where there are any
  void Observe(std::span<const RolloutGroup> groups, StepReport& report);

 private:
  const ProblemSet& problems_;
  int64_t said_at_ = std::numeric_limits<int64_t>::min() / 2;
};

}  // namespace moebius
