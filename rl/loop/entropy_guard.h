// Keeps a policy from collapsing: a bonus on entropy that comes and goes with how far entropy has fallen.
#pragma once

#include <span>

#include "rl/loop/rollout.h"

namespace moebius {

// Mean of -log pi(token) over the tokens of all samples, nats: an unbiased estimate of the entropy of the
// policy that sampled them, averaged over tokens (where rl.top_k and rl.top_p cut nothing off). 0 without
// tokens.
double SampledEntropy(std::span<const RolloutGroup> groups);

// coefficient, plus guard * (1 - entropy / floor) where entropy < floor. A floor of 0 guards nothing. Without
// memory: a step's coefficient depends on the step's samples alone, so a run that goes on after a kill, or on
// other ranks, has the same.
double GuardedEntropyCoefficient(double coefficient, double entropy, double floor, double guard);

}  // namespace moebius
