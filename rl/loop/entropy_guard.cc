#include "rl/loop/entropy_guard.h"

#include <algorithm>

namespace moebius {

double SampledEntropy(std::span<const RolloutGroup> groups) {
  double sum = 0;
  int64_t tokens = 0;
  for (const RolloutGroup& group : groups) {
    for (const RolloutSample& s : group.samples) {
      tokens += std::ssize(s.logprobs);
      for (const float logprob : s.logprobs) sum -= logprob;
    }
  }
  return tokens > 0 ? sum / static_cast<double>(tokens) : 0;
}

double GuardedEntropyCoefficient(double coefficient, double entropy, double floor, double guard) {
  if (!(entropy < floor)) return coefficient;
  return coefficient + guard * (1 - std::max(0.0, entropy) / floor);
}

}  // namespace moebius
