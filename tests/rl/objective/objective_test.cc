// Advantages, policy losses and estimates against figures computed in double precision by another program
// (tests/rl/testdata/policy_losses.json), and the identities between them.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "core/base/strings.h"
#include "core/io/json.h"
#include "gtest/gtest.h"
#include "rl/objective/advantages.h"
#include "rl/objective/estimates.h"
#include "rl/objective/policy_loss.h"

namespace moebius {
namespace {

using Doubles = std::vector<double>;

class ObjectiveTest : public testing::Test {
 protected:
  ObjectiveTest() {
    golden_ = *ReadJsonFile(Concat(MOEBIUS_SOURCE_DIR, "/tests/rl/testdata/policy_losses.json"), 1 << 20);
    groups_ = golden_["group"].get<std::vector<int64_t>>();
    lengths_ = golden_["answer_lengths"].get<std::vector<int64_t>>();
    rewards_ = golden_["rewards"].get<Doubles>();
    live_ = golden_["live"].get<Doubles>();
    proximal_ = golden_["proximal"].get<Doubles>();
    behaviour_ = golden_["behaviour"].get<Doubles>();
    reference_ = golden_["reference"].get<Doubles>();
    totals_ = {.answers = static_cast<double>(lengths_.size()), .tokens = static_cast<double>(live_.size())};
  }

  RewardedAnswers Answers() const { return {.groups = groups_, .rewards = rewards_, .lengths = lengths_}; }
  PolicyTokens Tokens(const Doubles& advantages) const {
    return {lengths_, advantages, live_, proximal_, behaviour_, reference_};
  }
  Doubles PerToken(const Doubles& of_answers) const {
    Doubles out;
    for (size_t i = 0; i < of_answers.size(); ++i) out.insert(out.end(), lengths_[i], of_answers[i]);
    return out;
  }
  Doubles PenalisedAdvantages() const {
    Doubles penalties;
    for (size_t t = 0; t < live_.size(); ++t) penalties.push_back(0.05 * (proximal_[t] - reference_[t]));
    RewardedAnswers answers = Answers();
    answers.token_penalties = penalties;
    return TokenAdvantages(AdvantageKind::kReinforcePlusPlus, answers);
  }
  static void ExpectNear(const Doubles& got, const Doubles& want, double tolerance, const std::string& what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << what << " " << i;
  }

  nlohmann::json golden_;
  std::vector<int64_t> groups_, lengths_;
  Doubles rewards_, live_, proximal_, behaviour_, reference_;
  BatchTotals totals_;
};

TEST_F(ObjectiveTest, AdvantagesAreAsComputedElsewhere) {
  for (const AdvantageKind kind :
       {AdvantageKind::kGrpo, AdvantageKind::kDrGrpo, AdvantageKind::kRloo, AdvantageKind::kBatchStd}) {
    const std::string name(AdvantageKindName(kind));
    ExpectNear(TokenAdvantages(kind, Answers()), PerToken(golden_["advantages"][name].get<Doubles>()), 1e-9,
               name);
  }
  const nlohmann::json& tokens = golden_["advantages_per_token"];
  ExpectNear(PenalisedAdvantages(), tokens["reinforce_pp"].get<Doubles>(), 1e-9, "reinforce_pp");
  ExpectNear(TokenAdvantages(AdvantageKind::kReinforcePlusPlusBaseline, Answers()),
             tokens["reinforce_pp_baseline"].get<Doubles>(), 1e-9, "reinforce_pp_baseline");
}

TEST_F(ObjectiveTest, EveryPolicyLossAndItsGradientAreAsComputedElsewhere) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Doubles grpo = TokenAdvantages(AdvantageKind::kGrpo, Answers());
  Doubles fourfold = grpo;
  for (double& a : fourfold) a *= 4;
  const Doubles none(live_.size(), 0.0);
  struct Case {
    const char* name;
    PolicyObjective objective;
    Doubles advantages;
  };
  const auto with = [](auto change) {
    PolicyObjective o;
    change(o);
    return o;
  };
  const Case cases[] = {
      {"grpo", with([](auto& o) {
         o.normaliser = Normaliser::kAnswers, o.kl = KlKind::kK3, o.kl_coefficient = 0.04;
       }),
       grpo},
      {"dapo", with([](auto& o) { o.clip_high = 0.28; }), grpo},
      {"dr_grpo", with([](auto& o) { o.normaliser = Normaliser::kFixedLength, o.maximum_length = 10; }),
       TokenAdvantages(AdvantageKind::kDrGrpo, Answers())},
      {"dual_clip", with([](auto& o) { o.dual_clip = 3; }), fourfold},
      {"gspo", with([](auto& o) {
         o.surrogate = Surrogate::kGspo, o.normaliser = Normaliser::kAnswers, o.clip_low = 3e-4,
         o.clip_high = 4e-4;
       }),
       grpo},
      {"gspo_wide",
       with([](auto& o) { o.surrogate = Surrogate::kGspo, o.normaliser = Normaliser::kAnswers; }), grpo},
      {"cispo",
       with([](auto& o) { o.surrogate = Surrogate::kCispo, o.clip_low = kInfinity, o.clip_high = 0.1; }),
       grpo},
      {"rloo", with([](auto& o) { o.surrogate = Surrogate::kPlain; }),
       TokenAdvantages(AdvantageKind::kRloo, Answers())},
      {"reinforce_pp_baseline", with([](auto& o) { o.kl = KlKind::kK2, o.kl_coefficient = 0.01; }),
       TokenAdvantages(AdvantageKind::kReinforcePlusPlusBaseline, Answers())},
      {"reinforce_pp", PolicyObjective(), PenalisedAdvantages()},
      {"dapo_tis", with([](auto& o) { o.clip_high = 0.28, o.correct_mismatch = true, o.truncate_at = 1.2; }),
       grpo},
      {"dapo_icepop", with([](auto& o) {
         o.clip_high = 0.28, o.correct_mismatch = true, o.keep_from = 0.9, o.keep_to = 1.1;
       }),
       grpo},
      {"kl_k1", with([](auto& o) { o.kl = KlKind::kK1, o.kl_coefficient = 1; }), none},
      {"kl_k2", with([](auto& o) { o.kl = KlKind::kK2, o.kl_coefficient = 1; }), none},
      {"kl_k3", with([](auto& o) { o.kl = KlKind::kK3, o.kl_coefficient = 1; }), none},
  };
  EXPECT_EQ(std::size(cases), golden_["losses"].size());
  for (const Case& c : cases) {
    const nlohmann::json& want = golden_["losses"][c.name];
    const PolicyLoss got = ComputePolicyLoss(c.objective, totals_, Tokens(c.advantages));
    EXPECT_NEAR(got.loss, want["loss"].get<double>(), 1e-9) << c.name;
    ExpectNear(got.gradient, want["gradient"].get<Doubles>(), 1e-9, c.name);
  }
}

TEST_F(ObjectiveTest, GradientsAreThoseOfTheLoss) {
  std::vector<PolicyObjective> objectives(4);
  objectives[0].dual_clip = 1.5;
  objectives[1].surrogate = Surrogate::kGspo;
  objectives[2].kl = KlKind::kK3;
  objectives[3].surrogate = Surrogate::kPlain;
  for (PolicyObjective& o : objectives) {
    o.kl_coefficient = 0.3;
    o.correct_mismatch = true;
    o.truncate_at = 1.1;
    const Doubles advantages = TokenAdvantages(AdvantageKind::kGrpo, Answers());
    const Doubles gradient = ComputePolicyLoss(o, totals_, Tokens(advantages)).gradient;
    for (size_t t = 0; t < live_.size(); ++t) {
      constexpr double kStep = 1e-6;
      const double before = live_[t];
      live_[t] = before + kStep;
      const double above = ComputePolicyLoss(o, totals_, Tokens(advantages)).loss;
      live_[t] = before - kStep;
      const double below = ComputePolicyLoss(o, totals_, Tokens(advantages)).loss;
      live_[t] = before;
      EXPECT_NEAR(gradient[t], (above - below) / (2 * kStep), 1e-7) << "token " << t;
    }
  }
}

TEST_F(ObjectiveTest, ABadTokenCostsAtMostItsDualBound) {
  PolicyObjective o;
  o.dual_clip = 3;
  const int64_t one = 1;
  const double advantage = -2, zero = 0;
  const auto at_ratio = [&](double ratio) {
    const double live = std::log(ratio);
    return ComputePolicyLoss(o, {1, 1}, {{&one, 1}, {&advantage, 1}, {&live, 1}, {&zero, 1}, {&zero, 1}, {}});
  };
  EXPECT_NEAR(at_ratio(2.5).loss, 5,
              1e-12);  // above 1 + clip_high the larger cost counts: no upper clip where A < 0
  EXPECT_NEAR(at_ratio(2.5).gradient[0], 5, 1e-12);
  EXPECT_NEAR(at_ratio(4).loss, 6, 1e-12);
  EXPECT_EQ(at_ratio(4).gradient[0], 0);
  EXPECT_EQ(at_ratio(4).clipped_dual, 1);
  EXPECT_EQ(at_ratio(0.5).clipped_low, 1);
  EXPECT_EQ(at_ratio(0.5).gradient[0], 0);
}

TEST_F(ObjectiveTest, RlooIsDrGrpoTimesGroupOverGroupLessOne) {
  const Doubles rloo = TokenAdvantages(AdvantageKind::kRloo, Answers());
  Doubles scaled = TokenAdvantages(AdvantageKind::kDrGrpo, Answers());
  for (double& a : scaled) a *= 4.0 / 3;
  ExpectNear(scaled, rloo, 1e-15, "rloo");
}

TEST_F(ObjectiveTest, AfterOneUpdateABatchAllSurrogatesHaveOneGradient) {
  proximal_ = behaviour_ = live_;
  const Doubles advantages = TokenAdvantages(AdvantageKind::kGrpo, Answers());
  PolicyObjective plain;
  plain.surrogate = Surrogate::kPlain;
  const Doubles want = ComputePolicyLoss(plain, totals_, Tokens(advantages)).gradient;
  for (const Surrogate surrogate : {Surrogate::kClipped, Surrogate::kCispo}) {
    PolicyObjective o;
    o.surrogate = surrogate;
    o.dual_clip = 3;
    o.correct_mismatch = true;  // rho is 1: no weight but 1
    o.truncate_at = 2;
    ExpectNear(ComputePolicyLoss(o, totals_, Tokens(advantages)).gradient, want, 1e-15, "surrogate");
  }
}

TEST_F(ObjectiveTest, CispoCountsTheWeightsThatItChanges) {
  PolicyObjective o;
  o.surrogate = Surrogate::kCispo;
  o.clip_low = o.clip_high = 0.1;
  int64_t low = 0, high = 0;
  for (size_t t = 0; t < live_.size(); ++t) {
    const double ratio = std::exp(live_[t] - proximal_[t]);
    low += ratio < 0.9;
    high += ratio > 1.1;
  }
  ASSERT_GT(low, 0);
  ASSERT_GT(high, 0);
  const PolicyLoss loss =
      ComputePolicyLoss(o, totals_, Tokens(TokenAdvantages(AdvantageKind::kGrpo, Answers())));
  EXPECT_EQ(loss.clipped_low, low);
  EXPECT_EQ(loss.clipped_high, high);
}

// Sums of a batch's parts, however it is cut, are the batch's.
TEST_F(ObjectiveTest, NoSplitOfTheBatchChangesAnything) {
  const Doubles advantages = TokenAdvantages(AdvantageKind::kGrpo, Answers());
  for (const Normaliser normaliser : {Normaliser::kTokens, Normaliser::kAnswers, Normaliser::kFixedLength}) {
    PolicyObjective o;
    o.normaliser = normaliser;
    o.maximum_length = 10;
    o.kl = KlKind::kTrue;
    o.kl_coefficient = 0.1;
    const PolicyLoss whole = ComputePolicyLoss(o, totals_, Tokens(advantages));
    for (const size_t parts : {2, 4, 20}) {
      double loss = 0;
      Doubles gradient;
      size_t first = 0;
      for (size_t p = 0; p < parts; ++p) {
        const size_t begin = p * lengths_.size() / parts, end = (p + 1) * lengths_.size() / parts;
        const std::span<const int64_t> lengths = std::span(lengths_).subspan(begin, end - begin);
        const size_t count = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
        const auto cut = [&](const Doubles& all) {
          return std::span<const double>(all).subspan(first, count);
        };
        const PolicyLoss part = ComputePolicyLoss(
            o, totals_,
            {lengths, cut(advantages), cut(live_), cut(proximal_), cut(behaviour_), cut(reference_)});
        loss += part.loss;
        gradient.insert(gradient.end(), part.gradient.begin(), part.gradient.end());
        first += count;
      }
      EXPECT_NEAR(loss, whole.loss, 1e-14);
      EXPECT_EQ(gradient, whole.gradient);
    }
  }
}

// Exact enumeration over a vocabulary of three: what the estimators' values and gradients are in expectation.
TEST_F(ObjectiveTest, KlEstimatorsHaveTheirExpectedValuesAndGradients) {
  const Doubles logits = {0.3, -0.7, 1.1}, other = {0.5, 0.2, -0.4};
  const auto softmax = [](const Doubles& z) {
    Doubles p;
    double sum = 0;
    for (const double v : z) p.push_back(std::exp(v)), sum += p.back();
    for (double& v : p) v /= sum;
    return p;
  };
  const auto kl = [&](const Doubles& z) {
    const Doubles p = softmax(z), q = softmax(other);
    double sum = 0;
    for (int i = 0; i < 3; ++i) sum += p[i] * std::log(p[i] / q[i]);
    return sum;
  };
  const Doubles p = softmax(logits), q = softmax(other);
  for (const KlKind kind : {KlKind::kK1, KlKind::kK2, KlKind::kK3, KlKind::kTrue}) {
    double value = 0;
    Doubles gradient(3, 0.0);
    for (int token = 0; token < 3; ++token) {
      const int64_t one = 1;
      const double zero = 0, live = std::log(p[token]), reference = std::log(q[token]);
      PolicyObjective o;
      o.kl = kind;
      o.kl_coefficient = 1;
      const PolicyLoss loss = ComputePolicyLoss(
          o, {1, 1}, {{&one, 1}, {&zero, 1}, {&live, 1}, {&live, 1}, {&live, 1}, {&reference, 1}});
      value += p[token] * loss.loss;
      for (int i = 0; i < 3; ++i) gradient[i] += p[token] * loss.gradient[0] * ((i == token) - p[i]);
    }
    if (kind != KlKind::kK2) {
      EXPECT_NEAR(value, kl(logits), 1e-15);
    }
    for (int i = 0; i < 3; ++i) {
      Doubles above = logits, below = logits;
      above[i] += 1e-6;
      below[i] -= 1e-6;
      const double exact = (kl(above) - kl(below)) / 2e-6;
      if (kind == KlKind::kK1) {
        EXPECT_NEAR(gradient[i], 0, 1e-15);
      }
      if (kind == KlKind::kK2 || kind == KlKind::kTrue) {
        EXPECT_NEAR(gradient[i], exact, 1e-9);
      }
      if (kind == KlKind::kK3) {
        EXPECT_NEAR(gradient[i], p[i] - q[i], 1e-15);  // d KL(q | p) / d logits
      }
    }
  }
}

TEST_F(ObjectiveTest, EqualRewardsGiveExactlyNothing) {
  const std::vector<int64_t> groups(7, 3), lengths(7, 2);
  const Doubles rewards(7, 0.1);  // seven times 0.1 does not average to 0.1
  for (const AdvantageKind kind : {AdvantageKind::kGrpo, AdvantageKind::kDrGrpo, AdvantageKind::kRloo,
                                   AdvantageKind::kBatchStd, AdvantageKind::kReinforcePlusPlusBaseline}) {
    EXPECT_EQ(TokenAdvantages(kind, {groups, rewards, lengths}), Doubles(14, 0.0)) << AdvantageKindName(kind);
  }
  const int64_t alone = 1;
  EXPECT_EQ(TokenAdvantages(AdvantageKind::kRloo, {{&alone, 1}, {rewards.data(), 1}, {&alone, 1}}),
            Doubles{0.0});
}

TEST_F(ObjectiveTest, AnAnswerThatCouldNotBeJudgedChangesNoOther) {
  const Doubles before = TokenAdvantages(AdvantageKind::kGrpo, Answers());
  groups_.push_back(0);
  lengths_.push_back(5);
  rewards_.push_back(std::numeric_limits<double>::quiet_NaN());
  Doubles want = before;
  want.insert(want.end(), 5, 0.0);
  EXPECT_EQ(TokenAdvantages(AdvantageKind::kGrpo, Answers()), want);
  const GroupSignal signal = MeasureSignal(Answers());
  EXPECT_EQ(signal.groups, 5);
  EXPECT_EQ(signal.flat, 1);
  EXPECT_EQ(signal.left_out, 1);
}

TEST_F(ObjectiveTest, EstimatesAreAsComputedElsewhere) {
  for (const nlohmann::json& c : golden_["pass_at_k"]) {
    EXPECT_NEAR(PassAtK(c["n"], c["c"], c["k"]), c["value"].get<double>(), 1e-12);
  }
  for (const nlohmann::json& c : golden_["soft_overlong_penalty"]) {
    EXPECT_NEAR(SoftOverlong(c["length"], c["maximum"], c["cache"]), c["penalty"].get<double>(), 1e-12);
  }
  const Estimate estimate = MeanOverPrompts(Doubles{0, 1, 1, 0});
  EXPECT_EQ(estimate.mean, 0.5);
  EXPECT_NEAR(estimate.half_width, 1.96 * std::sqrt(1.0 / 3 / 4), 1e-12);
  // Where nothing differs the normal approximation says nothing.
  EXPECT_DOUBLE_EQ(MeanOverPrompts(Doubles(60, 1.0)).half_width, 0.05);
  EXPECT_DOUBLE_EQ(MeanOverPrompts(Doubles(2, 0.0)).half_width, 1);
  EXPECT_DOUBLE_EQ(MeanOverPrompts(Doubles(60, 0.1)).half_width, 0.05) << "alike is not certain";
  EXPECT_EQ(MeanOverPrompts(Doubles{}).half_width, 0);
}

}  // namespace
}  // namespace moebius
