// Accuracy on held-out problems under the present weights: greedy answers, and by option several samples
// each.
#pragma once

#include "rl/loop/policy_model.h"
#include "rl/loop/rollout.h"
#include "rl/loop/step_source.h"

namespace moebius {

struct ProblemEvaluation {
  // Keys: eval/NAME, eval/NAME_ci (half the 95 % interval), eval/NAME_pass1, _passK; eval/NAME_undecided, the
  // share of answers that the others leave out, where there are some.
  std::string name;
  int64_t problems = 500;  // so many of the set, or all that it has
  int64_t samples = 0;
  RolloutOptions rollout;  // sampling is that of `samples`
  uint64_t seed = 0;
};

// Which of the set an evaluation on `most` asks: the first of a file; of a procedural task, which repeats
// itself, the first that differ.
std::vector<uint64_t> ProblemsToAsk(const ProblemSet& problems, int64_t most);

// Collective. The report's samples are the first greedy answers.
absl::StatusOr<StepReport> EvaluateProblems(Trainer& trainer, PolicyModel& policy, const ProblemTools& tools,
                                            const DecoderOptions& decoder, const ProblemEvaluation& options);

}  // namespace moebius
