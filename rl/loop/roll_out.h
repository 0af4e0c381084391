// Samples of all ranks, judged: each rank asks its share of the problems of the whole policy.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "rl/loop/policy_model.h"
#include "rl/loop/rollout.h"

namespace moebius {

struct RollOutOptions {
  RolloutOptions rollout;
  DecoderOptions decoder;
  uint64_t seed = 1;         // of what rewards draw
  uint64_t first_group = 0;  // SampleGroups
  Journal* journal = nullptr;
  // What is wanted of this rank's samples before they are judged and sent around; empty: nothing.
  std::function<void(const Model& policy, std::vector<RolloutGroup>& mine)> before_judging = {};
};

// Collective. One group for each of `problems`, in their order; the same on all ranks.
absl::StatusOr<std::vector<RolloutGroup>> RollOut(Trainer& trainer, PolicyModel& policy,
                                                  const ProblemTools& tools,
                                                  const std::vector<uint64_t>& problems,
                                                  const RollOutOptions& options);

}  // namespace moebius
