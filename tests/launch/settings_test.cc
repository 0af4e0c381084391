#include "launch/train/settings.h"

#include "gtest/gtest.h"
#include "launch/recipe.pb.h"
#include "launch/train/resolve_model.h"
#include "tests/launch/experts_recipe.h"

namespace moebius {
namespace {

// Reinforcement leaves selection biases alone unless it is told otherwise; other tasks go on moving them.
TEST(TrainConfigOf, RouterBiasesOfReinforcementAreAChoice) {
  EXPECT_EQ(TrainConfigOf(Experts({}).proto()).bias_update_speed, 0);
  EXPECT_EQ(TrainConfigOf(Experts({"rl.router_bias=MOVING"}).proto()).bias_update_speed, 0.01);
  EXPECT_EQ(TrainConfigOf(Experts({"task=SFT"}).proto()).bias_update_speed, 0.01);
}

// Two levels are host code, which cannot reach a GPU's memory.
TEST(LayoutOf, TokensGoInTwoLevelsOnGpusOnlyWhenToldTo) {
  const auto kind = [](std::vector<std::string> sets) {
    sets.push_back("rl.rollout=FAST");
    Recipe recipe = Experts(sets);
    const absl::StatusOr<Layout> layout = LayoutOf(recipe.proto(), *ResolveModel(recipe), 2);
    CHECK(layout.ok()) << layout.status();
    return layout->exchange.kind;
  };
  EXPECT_EQ(kind({"parallel.expert=2"}), ExchangeKind::kAuto);
  EXPECT_EQ(kind({"parallel.expert=2", "device=CUDA"}), ExchangeKind::kFlat);
  EXPECT_EQ(kind({"parallel.expert=2", "device=CUDA", "parallel.exchange=TWO_LEVEL"}),
            ExchangeKind::kTwoLevel);
  EXPECT_EQ(kind({"parallel.expert=2", "device=CUDA", "parallel.exchange=GATHER"}), ExchangeKind::kGather);
  EXPECT_EQ(kind({"parallel.expert=2", "parallel.exchange=FLAT"}), ExchangeKind::kFlat);
}

TEST(SequencesOfRun, IsTheSumOfItsStepsHoweverManyTheyAre) {
  for (const int steps : {0, 1, 5, 6, 20}) {
    auto recipe = Recipe::FromText(
        R"(init { from: "m" } data { train: "t.h5" } batch { sequences: 4 ramp { at_step: 1 to_sequences: 8 }
           ramp { at_step: 6 to_sequences: 16 } ramp { at_step: 30 to_sequences: 32 } })",
        "ramp.textproto", {"steps=" + std::to_string(steps)});
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    double sum = 0;
    for (int step = 1; step <= steps; ++step)
      sum += static_cast<double>(SequencesOfStep(recipe->proto(), step));
    EXPECT_EQ(SequencesOfRun(recipe->proto()), sum) << steps;
  }
  const auto recipe = Recipe::FromText(R"(init { from: "m" } data { train: "t.h5" } batch { sequences: 4 })",
                                       "long.textproto", {"steps=1e12"});
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_EQ(SequencesOfRun(recipe->proto()), 4e12);
}

// What training steps over, and `bench train` times.
TEST(StepBatchOf, KeepsDocumentsApartWhereTheRecipeDoes) {
  const Batch batch{
      .num_sequences = 1, .sequence_length = 4, .tokens = {1, 2, 3, 4, 5}, .document_starts = {{0, 2}}};
  proto::Recipe recipe;
  EXPECT_TRUE(StepBatchOf(batch, recipe).document_starts.empty());
  recipe.mutable_data()->set_document_mask(true);
  EXPECT_EQ(StepBatchOf(batch, recipe).document_starts, batch.document_starts);
  EXPECT_EQ(StepBatchOf(batch, recipe).tokens.size(), 5u);
}

}  // namespace
}  // namespace moebius
