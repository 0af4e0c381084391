#include "rl/reward/text_reward.h"

namespace moebius {

Reward WeightedReward(std::span<const RewardPart> parts) {
  if (parts.empty()) return std::nullopt;
  double sum = 0;
  for (const RewardPart& part : parts) {
    if (part.weight == 0) continue;
    if (!part.reward) return std::nullopt;
    sum += part.weight * *part.reward;
  }
  return sum;
}

}  // namespace moebius
