// What a run is predicted to take against what its trainer then holds.
#include "launch/train/memory.h"

#include <vector>

#include "core/base/status.h"
#include "gtest/gtest.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/setup.h"
#include "parallel/comm/solo_world.h"

namespace moebius {
namespace {

struct Prepared {
  Recipe recipe;
  ModelConfig config;
};

Prepared Load(const std::vector<std::string>& sets) {
  absl::StatusOr<Recipe> recipe = Recipe::Load(MOEBIUS_SOURCE_DIR "/recipes/quickstart.textproto", sets);
  CHECK(recipe.ok()) << std::string(recipe.status().message());
  absl::StatusOr<ModelConfig> config = ResolveModel(*recipe);
  CHECK(config.ok()) << std::string(config.status().message());
  return {*std::move(recipe), *std::move(config)};
}

int64_t HeldBytes(const Prepared& run) {
  SoloWorld world;
  absl::StatusOr<Training> training = BuildTraining(run.recipe.proto(), run.config, *world, 1);
  CHECK(training.ok()) << std::string(training.status().message());
  training->trainer->InitializeWeights(1);
  const auto& batch = run.recipe.proto().batch();
  const std::vector<int32_t> tokens(batch.sequences() * (batch.sequence_length() + 1), 7);
  const absl::StatusOr<StepMetrics> m = training->trainer->Step({.tokens = tokens,
                                                                 .sequences = batch.sequences(),
                                                                 .length = batch.sequence_length(),
                                                                 .document_starts = {}});
  CHECK(m.ok()) << std::string(m.status().message());
  CHECK(training->trainer->Close().ok());
  return m->peak_bytes;
}

TEST(MemoryTest, ThePredictionIsWhatTheTrainerHoldsAndTheRestOfItsBlocks) {
  const std::vector<std::vector<std::string>> cases = {
      {},
      {"batch.microbatch_sequences=2"},
      {"recompute.policy=BLOCKS", "precision.compute=BF16"},
      {"optimizer.moments=BF16", "batch.sequence_length=512", "model.max_position_embeddings=512"}};
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  for (const std::vector<std::string>& sets : cases) {
    const Prepared run = Load(sets);
    const absl::StatusOr<int64_t> predicted = PredictPeakBytes(run.recipe.proto(), run.config, *cpu);
    ASSERT_TRUE(predicted.ok()) << std::string(predicted.status().message());
    const int64_t held = HeldBytes(run);
    // Four arenas grow by blocks of 16 MiB; a microbatch's own copies of its tokens are not counted as held.
    EXPECT_GE(*predicted, held) << (sets.empty() ? "" : sets[0]);
    EXPECT_LE(*predicted, held + 5 * (int64_t{16} << 20)) << (sets.empty() ? "" : sets[0]);
  }
}

TEST(MemoryTest, ARunThatDoesNotFitIsRefusedWithTheNumbersBeforeAnythingIsAllocated) {
  const Prepared run = Load({"batch.sequences=32768"});
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const absl::Status status = CheckMemory(run.recipe.proto(), run.config, *cpu);
  EXPECT_EQ(ExitCode(status), kExitUnavailable);
  EXPECT_NE(status.message().find(" at its peak, cpu"), std::string::npos) << std::string(status.message());
  EXPECT_NE(status.message().find("batch.microbatch_sequences"), std::string::npos);
}

}  // namespace
}  // namespace moebius
