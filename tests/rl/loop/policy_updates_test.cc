// Several updates with one rollout: how groups are dealt to them, and what the later ones know.
#include <cmath>
#include <map>

#include "core/base/strings.h"
#include "tests/rl/loop/policy_batches.h"

namespace moebius {
namespace {

std::vector<RolloutGroup> Many() {
  std::vector<std::vector<std::optional<double>>> rewards;
  for (int i = 0; i < 11; ++i) {
    if (i % 4 == 3) {
      rewards.push_back({1, 1, 1});
    } else {
      rewards.push_back({1, 0, 0.5});
    }
  }
  return MakeSamples(rewards, 1000);
}

TEST(PolicyUpdatesTest, SeveralUpdatesCoverEveryGroupOnce) {
  const std::vector<RolloutGroup> samples = Many();
  for (const int64_t updates : {1, 2, 3}) {
    for (const int64_t least : {1, 2}) {
      PolicyOptions options;
      options.updates = updates;
      const PolicyBatch batch(options, samples, least);
      EXPECT_EQ(std::ssize(batch.updates()), updates);
      std::map<std::vector<int32_t>, int> seen;  // by the first answer's tokens and the prompt
      for (const GroupBatch& update : batch.updates()) {
        EXPECT_GE(std::ssize(update.groups), least);
        EXPECT_EQ(update.weigh == nullptr, &update == batch.updates().data()) << "only the first is known";
        for (const AnswerGroup& group : update.groups) ++seen[group.prompt];
      }
      int taught = 0;
      for (const RolloutGroup& g : samples) {
        const bool flat = g.samples[1].score.reward == 1;
        taught += !flat;
        EXPECT_EQ(seen[g.prompt], flat ? 0 : 1);
      }
      EXPECT_EQ(taught, 9);
    }
  }
}

// Later updates have moved away from the sampling policy: ratios and clipping count.
TEST(PolicyUpdatesTest, LaterUpdatesClip) {
  const std::vector<RolloutGroup> samples = Many();
  PolicyOptions options;
  options.updates = 3;
  options.objective.surrogate = Surrogate::kPlain;
  const PolicyBatch plain(options, samples, 1);
  options.objective.surrogate = Surrogate::kClipped;
  options.objective.clip_high = 0.28;
  PolicyBatch batch(options, samples, 1);
  const GroupBatch& update = batch.updates()[2];
  const Floats at_start = LossesOf(update, samples);
  const Floats want = Weigh(plain.updates()[2], at_start);
  ExpectNear(Weigh(update, at_start), want, 1e-6, "nothing has moved yet");
  Floats moved = at_start;
  for (float& loss : moved) loss -= 0.5f;  // ratio e^0.5 = 1.65
  const Floats weights = Weigh(update, moved);
  for (size_t i = 0; i < weights.size(); ++i) {
    // Better answers have gone far enough, worse ones have to come back.
    EXPECT_NEAR(weights[i], want[i] > 0 ? 0 : std::exp(0.5) * want[i], 1e-5 * std::abs(want[i])) << i;
  }
  EXPECT_GT(batch.sums().clipped_high, 0);
  EXPECT_EQ(batch.sums().clipped_low, 0);
  EXPECT_NEAR(batch.sums().ratio_high, std::exp(0.5), 1e-4);
  EXPECT_EQ(batch.mismatch(), "") << "only the first update is the sampling policy's";
}

// Each update's mean is over its share of the tokens, whatever groups fell into it.
TEST(PolicyUpdatesTest, EachUpdateDividesByItsShare) {
  const std::vector<RolloutGroup> samples = Many();
  PolicyOptions options;
  const PolicyBatch one(options, samples, 1);
  options.updates = 2;
  const PolicyBatch two(options, samples, 1);
  const Floats all = WeightsOf(one.updates()[0]);
  Floats halves = WeightsOf(two.updates()[0]);
  const Floats second = Weigh(two.updates()[1], LossesOf(two.updates()[1], samples));
  halves.insert(halves.end(), second.begin(), second.end());
  ASSERT_EQ(halves.size(), all.size());
  double tokens = 0;
  for (const RolloutGroup& g : samples) {
    for (const RolloutSample& s : g.samples) tokens += static_cast<double>(s.tokens.size());
  }
  const double factor = tokens / std::floor(tokens / 2);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_NEAR(halves[i], factor * all[i], 1e-6 * std::abs(all[i]));
}

// Fewer groups than updates: as many updates as there are groups, each of the mean of its own.
TEST(PolicyUpdatesTest, UpdatesAreNoMoreThanGroupsAndTheirMeansAreWhole) {
  const std::vector<RolloutGroup> samples = Mixed();
  PolicyOptions options;
  options.updates = 4;
  const PolicyBatch four(options, samples, 1);
  options.updates = 8;
  const PolicyBatch eight(options, samples, 1);
  ASSERT_EQ(eight.updates().size(), four.updates().size());
  EXPECT_EQ(WeightsOf(eight.updates()[0]), WeightsOf(four.updates()[0]));
}

}  // namespace
}  // namespace moebius
