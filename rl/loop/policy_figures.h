// What a step's samples look like: metrics over all of them, and a few to read.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rl/loop/rollout.h"
#include "rl/loop/step_source.h"
#include "rl/objective/advantages.h"

namespace moebius {

// What the rewards say, before anything is taken off them.
GroupSignal SignalOf(std::span<const RolloutGroup> groups);

// Adds rl/reward_*, rl/accuracy, rl/response_tokens_*, rl/unfinished, rl/repetition, rl/zero_variance_*,
// rl/left_out, and rl/draft_acceptance where tokens were drafted. A mean of nothing is left out.
void AddSampleFigures(std::span<const RolloutGroup> groups, const GroupSignal& signal, NamedValues& values);

// Answers of few groups, at most `most`, or one group where it has more; of each group all, so that what
// advantages compare stands side by side. `advantages`: of every answer.
std::vector<ShownSample> ShowSamples(const ProblemSet& problems, std::span<const RolloutGroup> groups,
                                     std::span<const double> advantages, int64_t most);

}  // namespace moebius
