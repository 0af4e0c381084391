#include "tests/rl/loop/samples.h"

#include "core/base/random.h"
#include "core/base/strings.h"

namespace moebius {

std::vector<RolloutGroup> MakeSamples(const std::vector<std::vector<std::optional<double>>>& rewards,
                                      int vocabulary) {
  const RandomStream random(5, "made-up samples");
  uint64_t next = 0;
  const auto token = [&] { return static_cast<int32_t>(random.Below(next++, vocabulary)); };
  std::vector<RolloutGroup> groups;
  for (const auto& row : rewards) {
    RolloutGroup& group = groups.emplace_back();
    group.problem = groups.size();
    for (int i = 0; i < 2 + static_cast<int>(groups.size() % 3); ++i) group.prompt.push_back(token());
    for (const std::optional<double>& reward : row) {
      RolloutSample& s = group.samples.emplace_back();
      const uint64_t length = 1 + random.Below(next++, 6);
      for (uint64_t t = 0; t < length; ++t) {
        s.tokens.push_back(token());
        s.logprobs.push_back(static_cast<float>(-0.1 - 2 * random.Uniform(next++)));
        s.sampling_logprobs.push_back(s.logprobs.back() + 0.05f);
        s.reference.push_back(s.logprobs.back() + static_cast<float>(random.Uniform(next++) - 0.5));
      }
      s.finished = length % 2 == 0;
      s.text = Concat("answer ", next);
      s.score.reward = s.score.correct = reward;
      s.score.verdict = reward ? *reward == 1 ? "equal" : "different" : "undecided";
    }
  }
  return groups;
}

}  // namespace moebius
