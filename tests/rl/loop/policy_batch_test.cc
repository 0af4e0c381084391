// From rewards to the weights of tokens: what an optimizer update is told about every answer.
#include "rl/loop/policy_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "tests/rl/loop/policy_batches.h"

namespace moebius {
namespace {

constexpr Surrogate kSurrogates[] = {Surrogate::kClipped, Surrogate::kGspo, Surrogate::kCispo,
                                     Surrogate::kPlain};
constexpr Normaliser kNormalisers[] = {Normaliser::kTokens, Normaliser::kAnswers, Normaliser::kFixedLength};
constexpr AdvantageKind kAdvantages[] = {AdvantageKind::kGrpo,
                                         AdvantageKind::kDrGrpo,
                                         AdvantageKind::kRloo,
                                         AdvantageKind::kBatchStd,
                                         AdvantageKind::kReinforcePlusPlus,
                                         AdvantageKind::kReinforcePlusPlusBaseline};

int64_t Balancing(const GroupBatch& update) {
  return std::count_if(update.groups.begin(), update.groups.end(),
                       [](const AnswerGroup& group) { return group.balances; });
}

TEST(PolicyBatchTest, WeightsKnownInAdvanceAreThoseOfTheCallback) {
  const std::vector<RolloutGroup> samples = Mixed();
  for (const AdvantageKind advantage : kAdvantages) {
    for (const Surrogate surrogate : kSurrogates) {
      for (const Normaliser normaliser : kNormalisers) {
        for (const KlKind kl : {KlKind::kNone, KlKind::kK1, KlKind::kK2, KlKind::kK3, KlKind::kTrue}) {
          PolicyOptions options;
          options.advantage = advantage;
          options.objective = {.surrogate = surrogate,
                               .dual_clip = 3,
                               .kl = kl,
                               .kl_coefficient = kl == KlKind::kNone ? 0 : 0.04,
                               .normaliser = normaliser,
                               .maximum_length = 6,
                               .truncate_at = 2,
                               .correct_mismatch = true};
          const PolicyBatch exact(options, samples, 1);
          options.exact = false;
          const PolicyBatch asked(options, samples, 1);
          ASSERT_EQ(exact.updates()[0].weigh, nullptr);
          ASSERT_NE(asked.updates()[0].weigh, nullptr);
          EXPECT_EQ(asked.updates()[0].observe, nullptr) << "once is enough";
          const Floats known = WeightsOf(exact.updates()[0]);
          EXPECT_EQ(known, Weigh(asked.updates()[0], LossesOf(asked.updates()[0], samples)));
          EXPECT_GT(std::count_if(known.begin(), known.end(), [](float w) { return w != 0; }), 20);
        }
      }
    }
  }
}

// Made-up samples were drawn at e^0.05 times what the policy says.
TEST(PolicyBatchTest, TokensOfACutDistributionWeighByWhatWasKept) {
  const std::vector<RolloutGroup> samples = Mixed();
  const auto weights = [&](const PolicyOptions& options) {
    const PolicyBatch batch(options, samples, 1);
    const GroupBatch& update = batch.updates()[0];
    return options.exact ? WeightsOf(update) : Weigh(update, LossesOf(update, samples));
  };
  for (const bool exact : {true, false}) {
    PolicyOptions options;
    options.exact = exact;
    options.objective = {.surrogate = Surrogate::kClipped, .correct_mismatch = true};
    const Floats whole = weights(options);
    Floats kept = whole;
    for (float& weight : kept) weight *= std::exp(-0.05f);
    options.cuts = true;
    ExpectNear(weights(options), kept, 1e-6, exact ? "exact" : "fast");
    options.objective.correct_mismatch = false;
    ExpectNear(weights(options), whole, 1e-6, "not corrected");
  }
}

TEST(PolicyBatchTest, AtTheSamplingPolicyAllSurrogatesGiveOneGradient) {
  const std::vector<RolloutGroup> samples = Mixed();
  for (const Normaliser normaliser : kNormalisers) {
    PolicyOptions options;
    options.objective = {.surrogate = Surrogate::kPlain, .normaliser = normaliser, .maximum_length = 6};
    const Floats plain = FirstWeights(options, samples);
    for (const Surrogate surrogate : kSurrogates) {
      options.objective.surrogate = surrogate;
      options.objective.clip_high = 0.28;
      ExpectNear(FirstWeights(options, samples), plain, 1e-6, Concat(static_cast<int>(surrogate)));
    }
  }
}

// GRPO, DAPO and Dr.GRPO differ by what a token's term is divided by, which is the whole batch's alone.
TEST(PolicyBatchTest, NormalisersDivideByTheWholeBatch) {
  const std::vector<RolloutGroup> samples = Mixed();
  std::map<Normaliser, Floats> weights;
  double tokens = 0;
  for (const RolloutGroup& g : samples) {
    for (const RolloutSample& s : g.samples) tokens += static_cast<double>(s.tokens.size());
  }
  PolicyOptions options;
  options.objective.maximum_length = 6;
  for (const Normaliser n : kNormalisers) {
    options.objective.normaliser = n;
    weights[n] = FirstWeights(options, samples);
  }
  options.objective.normaliser = Normaliser::kTokens;
  const PolicyBatch batch(options, samples, 1);
  size_t t = 0;
  for (const AnswerGroup& group : batch.updates()[0].groups) {
    for (const AnswerGroup::Answer& answer : group.answers) {
      const auto length = static_cast<double>(answer.tokens.size());
      for (size_t i = 0; i < answer.tokens.size(); ++i, ++t) {
        const double term = tokens * weights[Normaliser::kTokens][t];
        EXPECT_NEAR(weights[Normaliser::kAnswers][t], term / 16 / length, 1e-7);
        EXPECT_NEAR(weights[Normaliser::kFixedLength][t], term / 16 / 6, 1e-7);
      }
    }
  }
  EXPECT_EQ(t, weights[Normaliser::kTokens].size());
}

TEST(PolicyBatchTest, RlooIsDrGrpoTimesGroupOverGroupLessOne) {
  const std::vector<RolloutGroup> samples = Mixed();
  PolicyOptions options;
  options.advantage = AdvantageKind::kDrGrpo;
  Floats scaled = FirstWeights(options, samples);
  for (float& w : scaled) w *= 4.0f / 3;
  options.advantage = AdvantageKind::kRloo;
  ExpectNear(FirstWeights(options, samples), scaled, 1e-6, "rloo");
}

// A higher reward than the group's others makes an answer's tokens likelier: their cross-entropy falls, so
// its weight is positive.
TEST(PolicyBatchTest, BetterAnswersHavePositiveWeights) {
  const std::vector<RolloutGroup> samples = MakeSamples({{1, 0, 0, 1}});
  const PolicyBatch batch(PolicyOptions(), samples, 1);
  const AnswerGroup& group = batch.updates()[0].groups[0];
  for (size_t i = 0; i < 4; ++i) {
    for (const float weight : group.answers[i].weights) EXPECT_EQ(weight > 0, i == 0 || i == 3);
  }
}

TEST(PolicyBatchTest, EqualRewardsAreNoSignalAndWeighExactlyNothing) {
  // Seven times 0.1 does not average to 0.1.
  const std::vector<RolloutGroup> samples =
      MakeSamples({std::vector<std::optional<double>>(7, 0.1), {1, 1}, {0, 0, 0}});
  for (const AdvantageKind advantage :
       {AdvantageKind::kGrpo, AdvantageKind::kDrGrpo, AdvantageKind::kRloo, AdvantageKind::kBatchStd,
        AdvantageKind::kReinforcePlusPlusBaseline}) {
    PolicyOptions options;
    options.advantage = advantage;
    const PolicyBatch batch(options, samples, 2);
    EXPECT_FALSE(batch.has_signal());
    ASSERT_EQ(batch.updates().size(), 1u);
    EXPECT_EQ(batch.updates()[0].groups.size(), 2u) << "as many as a trainer needs";
    for (const float weight : WeightsOf(batch.updates()[0])) EXPECT_EQ(weight, 0);
  }
  EXPECT_TRUE(PolicyBatch(PolicyOptions(), Mixed(), 1).has_signal());
}

TEST(PolicyBatchTest, FlatGroupsDroppedChangeNoOthersWeights) {
  const std::vector<RolloutGroup> samples = Mixed();
  const PolicyBatch without(PolicyOptions(), samples, 1), with(PolicyOptions(), samples, 4);
  ASSERT_EQ(without.updates()[0].groups.size(), 3u);
  ASSERT_EQ(with.updates()[0].groups.size(), 4u);
  size_t found = 0;
  for (const AnswerGroup& group : with.updates()[0].groups) {
    const bool flat = group.prompt == samples[1].prompt;
    if (flat) {
      EXPECT_EQ(group.Predictions(), 0);
      continue;
    }
    for (size_t a = 0; a < group.answers.size(); ++a) {
      EXPECT_EQ(group.answers[a].weights, without.updates()[0].groups[found].answers[a].weights);
    }
    ++found;
  }
  // The mean stays that of the whole batch: without the flat group in it, weights would be larger.
  std::vector<RolloutGroup> fewer = samples;
  fewer.erase(fewer.begin() + 1);
  EXPECT_GT(std::abs(FirstWeights(PolicyOptions(), fewer)[0]),
            1.1 * std::abs(WeightsOf(without.updates()[0])[0]));
}

// Nine answers in two updates are four and a half each, not four.
TEST(PolicyBatchTest, AnUpdatesMeanIsOverItsShareOfTheBatch) {
  const std::vector<RolloutGroup> samples = MakeSamples({{1, 0, 0}, {1, 0, 1}, {0, 1, 0}});
  for (const Normaliser normaliser : kNormalisers) {
    PolicyOptions options;
    options.objective.normaliser = normaliser;
    options.objective.maximum_length = 6;
    const PolicyBatch one(options, samples, 1);
    options.updates = 2;
    const PolicyBatch two(options, samples, 1);
    const Floats whole = WeightsOf(one.updates()[0]), first = WeightsOf(two.updates()[0]);
    ASSERT_LT(first.size(), whole.size());
    for (size_t t = 0; t < first.size(); ++t) EXPECT_FLOAT_EQ(first[t], 2 * whole[t]) << t;
  }
}

// Which groups an update learns from does not depend on how many the ranks need of each.
TEST(PolicyBatchTest, UpdatesLearnFromTheSameGroupsOnAnyNumberOfRanks) {
  const std::vector<std::optional<double>> flat = {1, 1}, mixed = {1, 0};
  const std::vector<RolloutGroup> samples =
      MakeSamples({flat, flat, flat, mixed, mixed, mixed, mixed, mixed});
  PolicyOptions options;
  options.updates = 2;
  const auto taught = [&](int64_t least) {
    const PolicyBatch batch(options, samples, least);
    std::vector<std::vector<std::vector<int32_t>>> out;
    for (const GroupBatch& update : batch.updates()) {
      EXPECT_GE(std::ssize(update.groups), least);
      out.emplace_back();
      for (const AnswerGroup& group : update.groups) {
        const bool fills = std::any_of(samples.begin(), samples.begin() + 3,
                                       [&](const RolloutGroup& g) { return g.prompt == group.prompt; });
        if (!fills) out.back().push_back(group.prompt);
      }
    }
    return out;
  };
  const auto want = taught(1);
  ASSERT_EQ(want.size(), 2u);
  EXPECT_EQ(want[0].size() + want[1].size(), 5u);
  for (const int64_t least : {2, 3, 4}) EXPECT_EQ(taught(least), want) << least;
  EXPECT_EQ(taught(5).size(), 1u) << "there are not ten groups";
}

TEST(PolicyBatchTest, AnswersWithoutARewardAreLeftOut) {
  std::vector<RolloutGroup> samples = MakeSamples({{1, 0, 0, kNone}, {kNone, kNone}, {0, 1, kNone, 1}});
  const PolicyBatch batch(PolicyOptions(), samples, 1);
  const GroupBatch& update = batch.updates()[0];
  ASSERT_EQ(update.groups.size(), 2u);
  EXPECT_EQ(update.groups[0].answers.size(), 3u);
  EXPECT_EQ(update.groups[1].answers.size(), 3u);
  EXPECT_EQ(update.groups[1].answers[2].tokens, samples[2].samples[3].tokens);
  ASSERT_EQ(batch.advantages().size(), 10u);
  for (const size_t i : {3, 4, 5, 8}) EXPECT_TRUE(std::isnan(batch.advantages()[i])) << i;
  // As if they had never been there.
  std::vector<RolloutGroup> judged = samples;
  judged.erase(judged.begin() + 1);
  for (RolloutGroup& g : judged) std::erase_if(g.samples, [](const auto& s) { return !s.score.reward; });
  EXPECT_EQ(WeightsOf(update), FirstWeights(PolicyOptions(), judged));
  EXPECT_EQ(update.predictions, std::ssize(WeightsOf(update)));
}

// Judging has failed altogether: nothing is learned, whatever terms of their own tokens would have.
TEST(PolicyBatchTest, ABatchWithoutAnyRewardTeachesNothing) {
  const std::vector<RolloutGroup> samples = MakeSamples({{kNone, kNone}, {kNone, kNone}});
  PolicyOptions options;
  options.objective.kl = KlKind::kTrue;
  options.objective.kl_coefficient = 0.1;
  options.entropy_coefficient = 0.01;
  for (const bool exact : {true, false}) {
    options.exact = exact;
    const PolicyBatch batch(options, samples, 1);
    EXPECT_FALSE(batch.has_signal());
    const GroupBatch& update = batch.updates()[0];
    for (const AnswerGroup& group : update.groups) EXPECT_EQ(group.Predictions(), 0);
    EXPECT_EQ(update.predictions, 0);
    EXPECT_EQ(update.entropy_scale, 0);
    EXPECT_EQ(Balancing(update), 0);
  }
}

TEST(PolicyBatchTest, AnExactRolloutThatIsNotIsNamed) {
  const std::vector<RolloutGroup> samples = Mixed();
  PolicyOptions options;
  PolicyBatch batch(options, samples, 1);
  const GroupBatch& update = batch.updates()[0];
  Floats losses = LossesOf(update, samples);
  update.observe(0, std::ssize(update.groups), losses, {});
  EXPECT_EQ(batch.mismatch(), "");
  EXPECT_EQ(batch.sums().tokens, static_cast<double>(losses.size()));
  EXPECT_EQ(batch.sums().ratio, batch.sums().tokens);
  EXPECT_EQ(batch.sums().ratio_high, 1);
  EXPECT_EQ(batch.sums().mismatch_high, 0);
  losses[7] = std::nextafter(losses[7], 0.0f);
  update.observe(0, std::ssize(update.groups), losses, {});
  EXPECT_NE(batch.mismatch().find("token 7 of groups 0 to 2"), std::string::npos) << batch.mismatch();
  options.exact = false;
  PolicyBatch fast(options, samples, 1);
  Weigh(fast.updates()[0], losses);
  EXPECT_EQ(fast.mismatch(), "") << "nobody promised";
  EXPECT_GT(fast.sums().mismatch_high, 0);
}

// Parts of a batch, as ranks and microbatches see them.
TEST(PolicyBatchTest, CallbacksWorkOnAnyGroupsOfTheBatch) {
  const std::vector<RolloutGroup> samples = Mixed();
  for (const Surrogate surrogate : kSurrogates) {
    PolicyOptions options{.objective = {.surrogate = surrogate, .kl = KlKind::kK3, .kl_coefficient = 0.1}};
    options.exact = false;
    PolicyBatch whole(options, samples, 1), cut(options, samples, 1);
    const GroupBatch& update = whole.updates()[0];
    Floats losses = LossesOf(update, samples);
    for (size_t i = 0; i < losses.size(); ++i) losses[i] += 0.01f * static_cast<float>(i % 5);
    const Floats want = Weigh(update, losses);
    int64_t at = 0;
    for (int64_t g = 0; g < std::ssize(update.groups); ++g) {
      const int64_t n = update.groups[g].Predictions();
      Floats got(n);
      const std::span<const float> part = std::span<const float>(losses).subspan(at, n);
      cut.updates()[0].weigh(g, 1, part, got);
      EXPECT_EQ(got, Floats(want.begin() + at, want.begin() + at + n));
      at += n;
    }
    EXPECT_NEAR(cut.sums().loss, whole.sums().loss, 1e-12);
    EXPECT_NEAR(cut.sums().kl, whole.sums().kl, 1e-12);
    EXPECT_EQ(cut.sums().tokens, whole.sums().tokens);
    EXPECT_NE(whole.sums().loss, 0);
  }
}

TEST(PolicyBatchTest, KlInTheRewardIsTakenOffWhatAnswersEarn) {
  std::vector<RolloutGroup> samples = Mixed();
  PolicyOptions options;
  options.advantage = AdvantageKind::kDrGrpo;
  options.kl_in_reward = 0.2;
  const PolicyBatch batch(options, samples, 1);
  for (RolloutGroup& g : samples) {
    for (RolloutSample& s : g.samples) {
      for (size_t t = 0; t < s.tokens.size(); ++t)
        *s.score.reward -= 0.2 * (static_cast<double>(s.logprobs[t]) - s.reference[t]);
    }
  }
  options.kl_in_reward = 0;
  const PolicyBatch want(options, samples, 1);
  ASSERT_EQ(batch.advantages().size(), 16u);
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(batch.advantages()[i], want.advantages()[i], 1e-12) << i;
  EXPECT_EQ(batch.updates()[0].groups.size(), 4u) << "penalties tell equal rewards apart";
}

// REINFORCE++ has penalties by token: each is in the return of the tokens up to it.
TEST(PolicyBatchTest, KlInTheRewardOfReinforcePlusPlusFallsOnItsTokens) {
  const std::vector<RolloutGroup> samples = MakeSamples({{1}, {0}, {1}, {0.5}, {0}});
  PolicyOptions options;
  options.advantage = AdvantageKind::kReinforcePlusPlus;
  options.objective.surrogate = Surrogate::kPlain;
  options.kl_in_reward = 0.3;
  const PolicyBatch batch(options, samples, 1);
  std::vector<double> returns;
  for (const RolloutGroup& g : samples) {
    const RolloutSample& s = g.samples[0];
    for (size_t t = 0; t < s.tokens.size(); ++t) {
      double sum = *s.score.reward;
      for (size_t u = t; u < s.tokens.size(); ++u)
        sum -= 0.3 * (static_cast<double>(s.logprobs[u]) - s.reference[u]);
      returns.push_back(sum);
    }
  }
  const auto n = static_cast<double>(returns.size());
  const double mean = std::accumulate(returns.begin(), returns.end(), 0.0) / n;
  double squares = 0;
  for (const double r : returns) squares += (r - mean) * (r - mean);
  const Floats weights = WeightsOf(batch.updates()[0]);
  ASSERT_EQ(weights.size(), returns.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_NEAR(weights[i], (returns[i] - mean) / std::sqrt(squares / n) / n, 1e-6) << i;
  }
}

TEST(PolicyBatchTest, TermsOfTheirOwnKeepFlatGroups) {
  const std::vector<RolloutGroup> samples = Mixed();
  PolicyOptions entropy;
  entropy.entropy_coefficient = 0.01;
  const PolicyBatch batch(entropy, samples, 1);
  const GroupBatch& update = batch.updates()[0];
  ASSERT_EQ(update.groups.size(), 4u);
  EXPECT_TRUE(update.entropies);
  EXPECT_DOUBLE_EQ(update.entropy_scale, 0.01 / static_cast<double>(update.predictions));
  EXPECT_EQ(update.scale, 1);
  PolicyOptions kl;
  kl.objective.kl = KlKind::kK2;
  kl.objective.kl_coefficient = 0.5;
  kl.temperature = 0.7;
  const PolicyBatch with_kl(kl, samples, 1);
  ASSERT_EQ(with_kl.updates()[0].groups.size(), 4u);
  EXPECT_EQ(with_kl.updates()[0].entropy_scale, 0);
  EXPECT_EQ(with_kl.updates()[0].temperature, 0.7);
  // Of the flat group the KL term is all there is: -coefficient * (live - reference) / tokens.
  const AnswerGroup& flat = with_kl.updates()[0].groups[1];
  for (size_t a = 0; a < flat.answers.size(); ++a) {
    const RolloutSample& s = samples[1].samples[a];
    for (size_t t = 0; t < s.tokens.size(); ++t) {
      EXPECT_NEAR(flat.answers[a].weights[t],
                  -0.5 * (s.logprobs[t] - s.reference[t]) / static_cast<double>(update.predictions), 1e-8);
    }
  }
}

// A group that nobody could judge fills a batch up: it has no part in what is learned or said.
TEST(PolicyBatchTest, FillsCountForNothing) {
  const std::vector<RolloutGroup> samples = MakeSamples({{1, 0, 0, 1}, {kNone, kNone}});
  PolicyOptions options;
  options.exact = false;
  options.entropy_coefficient = 0.01;
  options.objective.kl = KlKind::kTrue;
  options.objective.kl_coefficient = 0.1;
  PolicyBatch with(options, samples, 2), without(options, {samples.data(), 1}, 1);
  const GroupBatch& filled = with.updates()[0];
  ASSERT_EQ(filled.groups.size(), 2u);
  EXPECT_EQ(filled.groups[1].Predictions(), 0) << "nor has it entropies";
  EXPECT_EQ(filled.entropy_scale, without.updates()[0].entropy_scale);
  EXPECT_GT(filled.entropy_scale, 0);
  EXPECT_EQ(filled.predictions, without.updates()[0].predictions);
  EXPECT_EQ(Weigh(filled, LossesOf(without.updates()[0], {samples.data(), 1})),
            Weigh(without.updates()[0], LossesOf(without.updates()[0], samples)));
  EXPECT_EQ(with.sums().tokens, without.sums().tokens);
  EXPECT_EQ(with.sums().kl, without.sums().kl);
  EXPECT_EQ(with.sums().loss, without.sums().loss);
}

// Routers are not taught by groups that are there to fill a batch alone.
TEST(PolicyBatchTest, OnlyWhatTeachesBalances) {
  PolicyOptions options;
  const auto balancing = [&](std::span<const RolloutGroup> groups, int64_t least) {
    const PolicyBatch batch(options, groups, least);
    EXPECT_EQ(std::ssize(batch.updates()[0].groups), least);
    return Balancing(batch.updates()[0]);
  };
  EXPECT_EQ(balancing(MakeSamples({{1, 0}, {0, 0}, {1, 1}}), 1), 1);
  EXPECT_EQ(balancing(MakeSamples({{1, 0}, {0, 0}, {1, 1}}), 3), 1);
  EXPECT_EQ(balancing(MakeSamples({{1, 1}, {0, 0}}), 1), 0);
  options.entropy_coefficient = 0.01;  // of every token that was judged
  EXPECT_EQ(balancing(MakeSamples({{1, 1}, {0, 0}}), 2), 2);
}

// What KL takes off rewards tells answers apart, but there is nothing to learn from it.
TEST(PolicyBatchTest, APenaltyIsNoSignal) {
  PolicyOptions options;
  options.kl_in_reward = 0.2;
  for (const AdvantageKind kind : kAdvantages) {
    options.advantage = kind;
    EXPECT_FALSE(PolicyBatch(options, MakeSamples({{1, 1}, {1, 1, 1}}), 1).has_signal());
    EXPECT_TRUE(PolicyBatch(options, Mixed(), 1).has_signal());
  }
}

// The first update of a rollout whose log-probabilities are only near: truncated importance weights.
TEST(PolicyBatchTest, FastRolloutsAreCorrectedByTruncatedWeights) {
  const std::vector<RolloutGroup> samples = Mixed();
  PolicyOptions options;
  options.exact = false;
  options.objective.correct_mismatch = true;
  options.objective.truncate_at = 1.5;
  const PolicyBatch batch(options, samples, 1);
  const GroupBatch& update = batch.updates()[0];
  const Floats losses = LossesOf(update, samples), want = Weigh(update, losses);
  for (const auto& [shift, rho] : {std::pair{0.1f, std::exp(0.1)}, {1.0f, 1.5}, {-0.3f, std::exp(-0.3)}}) {
    Floats moved = losses;
    for (float& loss : moved) loss -= shift;
    const Floats weights = Weigh(update, moved);
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_NEAR(weights[i], rho * want[i], 1e-5 * std::abs(want[i])) << shift;
    }
  }
}

}  // namespace
}  // namespace moebius
