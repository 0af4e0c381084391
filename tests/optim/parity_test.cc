// Ten training steps of every golden model against transformers: losses, gradient norms and balance metrics
// step by step, log-probabilities after the last one. Compiled twice: over tests/golden, and over all of
// ../shared/golden.
#include <cmath>

#include "core/backend/context.h"
#include "core/model/score.h"
#include "core/model/weights.h"
#include "gtest/gtest.h"
#include "optim/trainer.h"
#include "parallel/comm/solo_world.h"
#include "tests/core/model/golden_models.h"

namespace moebius {
namespace {

class ParityTest : public testing::TestWithParam<std::string> {};

std::map<std::string, double> Named(const StepMetrics& m) {
  return {{"train/loss", m.loss},
          {"train/grad_norm", m.grad_norm},
          {"mtp/loss", m.mtp_loss},
          {"moe/balance_loss", m.balance_loss},
          {"moe/max_violation", m.max_violation}};
}

TEST_P(ParityTest, TrainsAsTransformersDoesStepByStep) {
  const GoldenModel golden = ReadGoldenModel(GetParam());
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 2});
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  EXPECT_TRUE(golden.trains || GetParam().ends_with("fp8")) << "train.json is missing";
  for (const GoldenRun& run : golden.training.runs) {
    const absl::StatusOr<ModelConfig> model = LoadConfig(golden.folder);
    ASSERT_TRUE(model.ok()) << std::string(model.status().message());
    TrainConfig config;
    config.steps = static_cast<int64_t>(run.steps.size());
    config.microbatch_sequences = 2;
    config.schedule.lr = 2e-3;
    config.bias_update_speed = run.bias_update_speed;
    config.sequence_loss = run.sequence_loss;
    config.mtp_loss_weight = run.mtp_loss_weight;
    SoloWorld world;
    const std::unique_ptr<Trainer> trainer = *Trainer::New(*world, *backend, *stream, *model, {}, {}, config);
    const absl::Status loaded = LoadWeights(golden.folder, *backend, *stream, trainer->model());
    ASSERT_TRUE(loaded.ok()) << std::string(loaded.message());
    for (size_t step = 0; step < run.steps.size(); ++step) {
      const std::vector<int32_t> tokens = golden.training.Batch(static_cast<int64_t>(step));
      const auto got = Named(*trainer->Step({.tokens = tokens,
                                             .sequences = golden.training.sequences,
                                             .length = golden.training.sequence_length,
                                             .document_starts = {}}));
      for (const auto& [name, want] : run.steps[step].metrics) {
        ASSERT_TRUE(got.contains(name)) << name;
        EXPECT_NEAR(got.at(name), want, 1e-4 * std::abs(want)) << run.name << " step " << step << " " << name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, ParityTest, testing::ValuesIn(GoldenFolders(MOEBIUS_GOLDEN_ROOT)),
                         [](const auto& info) { return info.param.substr(info.param.rfind('/') + 1); });

}  // namespace
}  // namespace moebius
