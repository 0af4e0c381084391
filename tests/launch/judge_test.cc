#include "launch/train/judge.h"

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "data/token_file.h"
#include "gtest/gtest.h"
#include "launch/recipe.h"
#include "launch/train/resolve_model.h"
#include "launch/train/setup.h"
#include "parallel/comm/solo_world.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

class JudgeTest : public testing::Test {
 protected:
  static constexpr int64_t kVocab = 2048, kLength = 32;

  JudgeTest() {
    absl::StatusOr<Recipe> recipe =
        Recipe::Load(MOEBIUS_SOURCE_DIR "/recipes/quickstart.textproto", {"batch.sequence_length=32"});
    CHECK(recipe.ok()) << std::string(recipe.status().message());
    const absl::StatusOr<ModelConfig> config = ResolveModel(*recipe);
    CHECK(config.ok()) << std::string(config.status().message());
    absl::StatusOr<Training> training = BuildTraining(recipe->proto(), *config, *world_, 1);
    CHECK(training.ok()) << std::string(training.status().message());
    training_.emplace(*std::move(training));
    training_->trainer->InitializeWeights(1);
  }
  ~JudgeTest() override { EXPECT_TRUE(training_->trainer->Close().ok()); }

  std::string WriteTokens(const std::string& name, int64_t tokens) {
    const std::string path = folder_.File(name);
    auto writer = TokenFileWriter::Create(path, kVocab);
    EXPECT_TRUE(writer.ok()) << writer.status();
    std::vector<int32_t> ids(tokens);
    for (int64_t i = 0; i < tokens; ++i) ids[i] = static_cast<int32_t>(i * 37 % 101);
    EXPECT_TRUE((*writer)->AddDocument(ids).ok());
    EXPECT_TRUE(
        (*writer)
            ->Finish(
                {.vocab_size = kVocab, .bytes = 3 * tokens, .tokenizer_sha256 = "", .tokenizer_json = ""})
            .ok());
    return path;
  }
  Judge Of(const std::string& path, int64_t max_tokens) {
    absl::StatusOr<Validation> validation = Validation::Open(path, kLength, kVocab, max_tokens, false);
    CHECK(validation.ok()) << std::string(validation.status().message());
    return Judge(*std::move(validation), max_tokens);
  }
  // The line, or nullopt; stops before the given pass.
  std::optional<std::string> Run(const Judge& judge, bool is_last, MetricsRow* row, int passes = 1000) {
    const auto line = judge.Run(
        *training_->trainer, is_last, [&]() -> absl::StatusOr<bool> { return passes-- <= 0; }, row);
    EXPECT_TRUE(line.ok()) << line.status();
    return *line;
  }
  TrainerState& state() { return training_->trainer->state(); }

  const TempFolder folder_;
  SoloWorld world_;
  std::optional<Training> training_;
};

TEST_F(JudgeTest, TheBestIsOfOneTextAndOneExtent) {
  const std::string a = WriteTokens("a.h5", 3000), b = WriteTokens("b.h5", 3000);
  const auto best_after = [&](const std::string& judged_by, const Judge& judge) {
    TrainerState s;
    s.judged_by = judged_by;
    s.best_step = 40;
    s.best_val_loss = 2.5;
    judge.Begin(s);
    EXPECT_NE(s.judged_by, "");
    EXPECT_EQ(s.best_val_loss == 2.5, s.best_step == 40);
    return s.best_step;
  };
  TrainerState begun;
  Of(a, 1000).Begin(begun);
  EXPECT_EQ(best_after(begun.judged_by, Of(a, 1000)), 40);
  EXPECT_EQ(best_after("", Of(a, 1000)), 40) << "of a checkpoint that does not say";
  EXPECT_EQ(best_after(begun.judged_by, Of(a, 2000)), -1) << "more of it";
  EXPECT_EQ(best_after(begun.judged_by, Of(b, 1000)), -1) << "another file";
  EXPECT_EQ(best_after(begun.judged_by, Of(WriteTokens("a.h5", 2999), 1000)), -1) << "it was written again";
}

TEST_F(JudgeTest, KeepsTheLowestLossAndSaysWhatItIsOf) {
  const Judge judge = Of(WriteTokens("val.h5", 30000), 1000);
  judge.Begin(state());
  state().step = 7;
  MetricsRow row;
  const std::optional<std::string> line = Run(judge, false, &row);
  ASSERT_TRUE(line.has_value());
  EXPECT_NE(line->find("step 7  validation loss"), std::string::npos) << *line;
  EXPECT_NE(line->find("(estimate on a part)  (best so far)"), std::string::npos) << *line;
  EXPECT_EQ(state().best_step, 7);
  const double estimate = state().best_val_loss;
  EXPECT_EQ(row.Get("val/part_loss"), estimate);
  EXPECT_TRUE(row.Get("val/part_bpb").has_value());
  EXPECT_FALSE(row.Get("val/loss").has_value()) << "that is of the whole file";

  // The same weights are no better. At the end the figure is of the whole file, the comparison of the part.
  state().step = 8;
  const std::optional<std::string> last = Run(judge, true, &row);
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->find("("), std::string::npos) << *last;
  EXPECT_EQ(state().best_step, 7);
  EXPECT_EQ(row.Get("val/part_loss"), estimate);
  ASSERT_TRUE(row.Get("val/loss").has_value());
  EXPECT_NE(row.Get("val/loss"), estimate);
  state().best_val_loss = std::nextafter(estimate, std::numeric_limits<double>::infinity());
  EXPECT_TRUE(Run(judge, true, &row).has_value());
  EXPECT_EQ(state().best_step, 8);
  EXPECT_EQ(state().best_val_loss, estimate);
}

TEST_F(JudgeTest, ARequestToStopLeavesNothingButThatItIsStillToBeDone) {
  const Judge judge = Of(WriteTokens("val.h5", 30000), 1000);
  judge.Begin(state());
  const double before = state().best_val_loss;
  for (const bool is_last : {false, true}) {
    MetricsRow row;
    EXPECT_EQ(Run(judge, is_last, &row, 0), std::nullopt);
    EXPECT_TRUE(state().unvalidated);
    EXPECT_TRUE(row.values.empty());
    EXPECT_EQ(state().best_step, -1);
    EXPECT_EQ(state().best_val_loss, before);
  }
  MetricsRow row;
  EXPECT_TRUE(Run(judge, false, &row).has_value());
  EXPECT_FALSE(state().unvalidated);
}

}  // namespace
}  // namespace moebius
