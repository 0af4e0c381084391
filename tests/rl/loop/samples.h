// Made-up samples with rewards, for tests of rl/loop.
#pragma once

#include <optional>
#include <vector>

#include "rl/loop/rollout.h"

namespace moebius {

// One group for each row of rewards (nullopt: could not be judged), one answer of 1 to 6 random tokens for
// each reward, with log-probabilities of the sampling policy and of a reference near it. A pure function of
// the arguments.
std::vector<RolloutGroup> MakeSamples(const std::vector<std::vector<std::optional<double>>>& rewards,
                                      int vocabulary = 30);

}  // namespace moebius
