// Every name of a recipe's section `rl` means the formula that it says.
#include "rl/loop/rl_options.h"

#include <cmath>

#include "core/base/status.h"
#include "gtest/gtest.h"
#include "rl/loop/loop.pb.h"
#include "rl/loop/policy_source.h"

namespace moebius {
namespace {

TEST(PolicyOptionsOf, NamesMeanTheirFormulas) {
  proto::Rl rl;
  const std::pair<proto::Rl::Advantage, AdvantageKind> advantages[] = {
      {proto::Rl::GROUP_NORMALISED, AdvantageKind::kGrpo},
      {proto::Rl::GROUP_MEAN, AdvantageKind::kDrGrpo},
      {proto::Rl::LEAVE_ONE_OUT, AdvantageKind::kRloo},
      {proto::Rl::BATCH_DEVIATION, AdvantageKind::kBatchStd},
      {proto::Rl::REINFORCE_PP, AdvantageKind::kReinforcePlusPlus},
      {proto::Rl::REINFORCE_PP_BASELINE, AdvantageKind::kReinforcePlusPlusBaseline}};
  ASSERT_EQ(std::size(advantages), static_cast<size_t>(proto::Rl::Advantage_ARRAYSIZE));
  for (const auto& [name, kind] : advantages) {
    rl.set_advantage(name);
    EXPECT_EQ(PolicyOptionsOf(rl).advantage, kind) << name;
  }
  const std::pair<proto::Rl::Surrogate, Surrogate> surrogates[] = {{proto::Rl::CLIPPED, Surrogate::kClipped},
                                                                   {proto::Rl::GSPO, Surrogate::kGspo},
                                                                   {proto::Rl::CISPO, Surrogate::kCispo},
                                                                   {proto::Rl::PLAIN, Surrogate::kPlain}};
  ASSERT_EQ(std::size(surrogates), static_cast<size_t>(proto::Rl::Surrogate_ARRAYSIZE));
  for (const auto& [name, kind] : surrogates) {
    rl.set_surrogate(name);
    EXPECT_EQ(PolicyOptionsOf(rl).objective.surrogate, kind) << name;
  }
  const std::pair<proto::Rl::Normaliser, Normaliser> normalisers[] = {
      {proto::Rl::TOKENS, Normaliser::kTokens},
      {proto::Rl::ANSWERS, Normaliser::kAnswers},
      {proto::Rl::FIXED_LENGTH, Normaliser::kFixedLength}};
  ASSERT_EQ(std::size(normalisers), static_cast<size_t>(proto::Rl::Normaliser_ARRAYSIZE));
  rl.set_max_new(77);
  for (const auto& [name, kind] : normalisers) {
    rl.set_normaliser(name);
    EXPECT_EQ(PolicyOptionsOf(rl).objective.normaliser, kind) << name;
    EXPECT_EQ(PolicyOptionsOf(rl).objective.maximum_length, 77);
  }
}

TEST(PolicyOptionsOf, KlStandsInTheLossOrInTheReward) {
  proto::Rl rl;
  rl.set_kl_coefficient(0.3);
  const std::pair<proto::Rl::Kl, KlKind> kinds[] = {{proto::Rl::NO_KL, KlKind::kNone},
                                                    {proto::Rl::K1, KlKind::kK1},
                                                    {proto::Rl::K2, KlKind::kK2},
                                                    {proto::Rl::K3, KlKind::kK3},
                                                    {proto::Rl::TRUE_GRADIENT, KlKind::kTrue}};
  ASSERT_EQ(std::size(kinds), static_cast<size_t>(proto::Rl::Kl_ARRAYSIZE));
  for (const auto& [name, kind] : kinds) {
    rl.set_kl(name);
    const PolicyOptions options = PolicyOptionsOf(rl);
    EXPECT_EQ(options.objective.kl, kind) << name;
    EXPECT_EQ(options.objective.kl_coefficient, 0.3);
    EXPECT_EQ(options.kl_in_reward, 0);
  }
  rl.set_kl(proto::Rl::K1);
  rl.set_kl_in_reward(true);
  const PolicyOptions options = PolicyOptionsOf(rl);
  EXPECT_EQ(options.objective.kl, KlKind::kNone);
  EXPECT_EQ(options.objective.kl_coefficient, 0);
  EXPECT_EQ(options.kl_in_reward, 0.3);
}

TEST(PolicyOptionsOf, BoundsAreTheRecipes) {
  proto::Rl rl;
  rl.set_clip_low(0.1);
  rl.set_clip_high(0.28);
  rl.set_dual_clip(3);
  rl.set_truncate_at(4);
  rl.set_keep_from(0.5);
  rl.set_keep_to(5);
  rl.set_correct_mismatch(false);
  rl.set_updates(6);
  rl.set_temperature(0.7);
  rl.set_entropy_coefficient(0.02);
  const PolicyOptions o = PolicyOptionsOf(rl);
  EXPECT_EQ(o.objective.clip_low, 0.1);
  EXPECT_EQ(o.objective.clip_high, 0.28);
  EXPECT_EQ(o.objective.dual_clip, 3);
  EXPECT_EQ(o.objective.truncate_at, 4);
  EXPECT_EQ(o.objective.keep_from, 0.5);
  EXPECT_EQ(o.objective.keep_to, 5);
  EXPECT_FALSE(o.objective.correct_mismatch);
  EXPECT_EQ(o.updates, 6);
  EXPECT_EQ(o.temperature, 0.7);
  EXPECT_EQ(o.entropy_coefficient, 0.02);
  rl.set_clip_low(1);
  EXPECT_TRUE(std::isinf(PolicyOptionsOf(rl).objective.clip_low)) << "a ratio is above 0 anyway";
}

TEST(CheckPolicy, RefusesWhatNothingWouldUse) {
  struct Case {
    const char* part;  // of the message
    void (*change)(proto::Rl& rl);
  };
  const Case cases[] = {{"reference_refresh_steps", [](proto::Rl& rl) { rl.set_reference_refresh_steps(5); }},
                        {"kl_in_reward",
                         [](proto::Rl& rl) {
                           rl.set_kl(proto::Rl::K3);
                           rl.set_kl_in_reward(true);
                         }},
                        {"rl.kl_in_reward: true", [](proto::Rl& rl) { rl.set_kl(proto::Rl::K1); }},
                        {"surrogate is PLAIN",
                         [](proto::Rl& rl) {
                           rl.set_surrogate(proto::Rl::PLAIN);
                           rl.set_updates(2);
                         }},
                        {"kl_coefficient", [](proto::Rl& rl) { rl.set_kl_coefficient(0.1); }},
                        {"entropy_guard", [](proto::Rl& rl) { rl.set_entropy_guard(0.1); }},
                        {"dual_clip", [](proto::Rl& rl) { rl.set_dual_clip(1); }},
                        {"rl.top_k or rl.top_p",
                         [](proto::Rl& rl) {
                           rl.set_entropy_floor(1);
                           rl.set_top_k(5);
                         }},
                        {"rl.top_k or rl.top_p",
                         [](proto::Rl& rl) {
                           rl.set_entropy_floor(1);
                           rl.set_top_p(0.9);
                         }},
                        {"group_size", [](proto::Rl& rl) { rl.set_group_size(1); }},
                        {"refill_rounds", [](proto::Rl& rl) {
                           rl.set_group_size(1);
                           rl.set_advantage(proto::Rl::REINFORCE_PP);
                           rl.set_refill_rounds(1);
                         }}};
  EXPECT_TRUE(CheckPolicy(proto::Rl()).ok());
  for (const Case& c : cases) {
    proto::Rl rl;
    c.change(rl);
    const absl::Status refused = CheckPolicy(rl);
    EXPECT_EQ(ExitCode(refused), kExitUsage) << c.part;
    EXPECT_NE(refused.message().find(c.part), absl::string_view::npos) << refused;
  }
}

}  // namespace
}  // namespace moebius
