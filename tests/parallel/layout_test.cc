#include "parallel/layout.h"

#include <set>

#include "core/base/status.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule_text.h"
#include "parallel/stages.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

ModelConfig Model() {
  ModelConfig m;
  m.num_hidden_layers = 8;
  m.n_routed_experts = 16;
  m.num_experts_per_tok = 2;
  m.first_k_dense_replace = 1;
  m.vocab_size = 100;
  m.hidden_size = 64;
  m.intermediate_size = 128;
  m.moe_intermediate_size = 32;
  m.num_attention_heads = m.num_key_value_heads = 4;
  m.kv_lora_rank = 16;
  m.qk_nope_head_dim = m.qk_rope_head_dim = m.v_head_dim = 16;
  return m;
}

constexpr BatchSizes kBatch{.sequences = 16, .microbatch_sequences = 1};

std::string ErrorOf(const absl::StatusOr<Layout>& layout) {
  EXPECT_EQ(ExitCode(layout.status()), kExitUsage);
  return std::string(layout.status().message());
}

TEST(Layout, TakesTheRestForDataAndNumbersRanksBothWays) {
  const absl::StatusOr<Layout> layout =
      FitLayout({.pipeline = 2, .data = 0, .expert = 2}, 8, Model(), kBatch);
  ASSERT_TRUE(layout.ok()) << std::string(layout.status().message());
  EXPECT_EQ(layout->data, 2);
  std::set<int> shards;
  for (int rank = 0; rank < 8; ++rank) {
    const Coordinates at = CoordinatesOf(*layout, rank);
    EXPECT_EQ(RankOf(*layout, at), rank);
    if (at.pipeline == 1) shards.insert(at.batch_shard(*layout));
  }
  EXPECT_EQ(shards, (std::set<int>{0, 1, 2, 3})) << "each part of the batch has one rank a pipeline stage";
  EXPECT_EQ(CoordinatesOf(*layout, 1).expert, 1) << "expert ranks are neighbours";
}

TEST(Layout, NamesEverySizeThatDoesNotFitAtOnceWithTheNearestThatDo) {
  const std::string error =
      ErrorOf(FitLayout({.pipeline = 2, .data = 0, .expert = 3}, 9, Model(), {.sequences = 16}));
  EXPECT_EQ(error.find("batch.sequences"), std::string::npos)
      << "parallel.data is not known, so nothing can be said of it: " << error;
  EXPECT_NE(
      error.find("9 ranks do not divide by parallel.pipeline x parallel.expert = 2 x 3; start 6 or 12 ranks"),
      std::string::npos)
      << error;
  EXPECT_NE(error.find("model.n_routed_experts 16 does not divide by parallel.expert 3; use 2 or 4"),
            std::string::npos)
      << error;
  const std::string both =
      ErrorOf(FitLayout({.pipeline = 2, .data = 0, .expert = 3}, 6, Model(), {.sequences = 16}));
  EXPECT_NE(both.find("model.n_routed_experts 16"), std::string::npos) << both;
  EXPECT_NE(
      both.find(
          "batch.sequences 16 does not divide by parallel.data x parallel.expert = 1 x 3; use 15 or 18"),
      std::string::npos)
      << both;
}

TEST(Layout, NamesAScheduleBesideABatchThatDoesNotDivide) {
  const std::string error =
      ErrorOf(FitLayout({.pipeline = 2, .data = 3, .schedule = "1f1c"}, 6, Model(), {.sequences = 16}));
  EXPECT_NE(error.find("batch.sequences 16 does not divide"), std::string::npos) << error;
  EXPECT_NE(error.find("1f1b"), std::string::npos) << error;
}

// Positions of a pass are 32-bit numbers, and no machine has memory for so many.
TEST(Layout, RefusesMicrobatchesBeyondAnyMemory) {
  const BatchSizes batch{.sequences = 1 << 24, .microbatch_sequences = 0, .length = 128};
  const std::string error = ErrorOf(FitLayout({}, 1, Model(), batch));
  EXPECT_NE(error.find("set batch.microbatch_sequences to 1048576 or less"), std::string::npos) << error;
  EXPECT_TRUE(FitLayout({}, 1, Model(), {.sequences = 1 << 20, .length = 128}).ok());
  EXPECT_TRUE(FitLayout({.data = 16}, 16, Model(), batch).ok()) << "each rank has a part";
}

TEST(Layout, RefusesWhatScheduleOrModelCannotDo) {
  EXPECT_NE(ErrorOf(FitLayout({.pipeline = 4, .schedule = "dualpipe"}, 4, Model(),
                              {.sequences = 4, .microbatch_sequences = 1}))
                .find("needs at least 8 microbatches, not 4; choose 8, or 1f1b; a step has as many as "
                      "batch.microbatch_sequences (1 here) makes of a rank's 4 sequences of batch.sequences"),
            std::string::npos);
  EXPECT_NE(ErrorOf(FitLayout({.pipeline = 8, .schedule = "zbv"}, 8, Model(), kBatch))
                .find("16 stages, but the model has 8"),
            std::string::npos);
  EXPECT_NE(ErrorOf(FitLayout({.schedule = "1f1c"}, 1, Model(), kBatch)).find("1f1b"), std::string::npos);
  ModelConfig dense = Model();
  dense.n_routed_experts = 0;
  EXPECT_NE(ErrorOf(FitLayout({.expert = 2}, 2, dense, kBatch)).find("no experts"), std::string::npos);
}

TEST(Layout, RefusesSizesThatMultiplyToMoreThanAnyNumberOfRanks) {
  Layout layout{.pipeline = 65536, .data = 0, .expert = 65536};
  EXPECT_NE(ErrorOf(FitLayout(layout, 4, Model(), kBatch)).find("65536 x 65536; start 4294967296 ranks"),
            std::string::npos);
  layout.data = 1;
  EXPECT_NE(
      ErrorOf(FitLayout(layout, 4, Model(), kBatch)).find("65536 x 1 x 65536 is 4294967296, but there are 4"),
      std::string::npos);
  layout = {.pipeline = 1, .data = 65536, .expert = 65536};
  EXPECT_NE(ErrorOf(FitLayout(layout, 4, Model(), kBatch)).find("does not divide by parallel.data"),
            std::string::npos);
}

TEST(Layout, RefusesAScheduleFileThatLeavesOutTheSumOfAnEmbeddingThatTwoStagesShare) {
  const Scratch scratch;
  Layout layout{.pipeline = 2};
  const Schedule compute = *ScheduleOf(layout, 16);
  ModelConfig tied = Model();
  tied.tie_word_embeddings = true;
  layout.schedule = scratch.path("mine.txt");
  const auto fits = [&](bool sums, const ModelConfig& model) {
    EXPECT_TRUE(
        WriteFileAtomically(layout.schedule, ToText(*Lower(compute, {.shared_embedding = sums}))).ok());
    return FitLayout(layout, 2, model, kBatch);
  };
  EXPECT_TRUE(fits(true, tied).ok());
  EXPECT_TRUE(fits(false, Model()).ok());
  EXPECT_NE(ErrorOf(fits(false, tied)).find("mine.txt: rank 0 lacks REDUCE_TIED"), std::string::npos);
}

TEST(Layout, RunsAUsersScheduleFileAndRefusesABrokenOne) {
  const Scratch scratch;
  Layout layout{.pipeline = 2};
  const Schedule one_f_one_b = *ScheduleOf(layout, 16);
  std::string text = ToText(one_f_one_b);
  layout.schedule = scratch.path("mine.txt");
  ASSERT_TRUE(WriteFileAtomically(layout.schedule, text).ok());
  const absl::StatusOr<Schedule> mine = ScheduleOf(layout, 16);
  ASSERT_TRUE(mine.ok()) << std::string(mine.status().message());
  EXPECT_EQ(mine->actions, one_f_one_b.actions);
  EXPECT_EQ(ExitCode(ScheduleOf(layout, 8).status()), kExitUsage) << "made for other microbatches";
  layout.pipeline = 4;
  EXPECT_EQ(ExitCode(ScheduleOf(layout, 16).status()), kExitUsage) << "made for other ranks";
  layout.pipeline = 2;
  const size_t at = text.find("B1.3");
  ASSERT_NE(at, std::string::npos);
  ASSERT_TRUE(WriteFileAtomically(layout.schedule, text.replace(at, 4, "B1.4")).ok());
  const absl::Status broken = ScheduleOf(layout, 16).status();
  EXPECT_EQ(ExitCode(broken), kExitUsage);
  EXPECT_NE(std::string(broken.message()).find("B1.4"), std::string::npos) << std::string(broken.message());
}

TEST(Layout, SplitsLayersByCostAndCoversTheModel) {
  ModelConfig m = Model();
  m.vocab_size = 100000;  // a head that outweighs layers
  const absl::StatusOr<std::vector<StageRange>> ranges = PlanStages(m, 4);
  ASSERT_TRUE(ranges.ok());
  int64_t next = 0;
  for (const StageRange& range : *ranges) {
    EXPECT_EQ(range.first_layer, next);
    EXPECT_GT(range.last_layer, range.first_layer);
    next = range.last_layer;
  }
  EXPECT_EQ(next, 8);
  EXPECT_TRUE(ranges->front().embedding && ranges->back().head);
  EXPECT_EQ(ranges->back().last_layer - ranges->back().first_layer, 1)
      << "the stage with the head has the fewest layers";
}

}  // namespace
}  // namespace moebius
