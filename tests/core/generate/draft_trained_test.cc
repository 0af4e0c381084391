// Drafts of a module that has learned: they save steps.
#include <gtest/gtest.h>

#include "core/backend/device.h"
#include "core/generate/generate.h"
#include "tests/optim/training.h"

namespace moebius {
namespace {

constexpr int32_t kVocab = 40;

// Each token has one successor.
int32_t After(int32_t token) { return (token * 7 + 3) % kVocab; }

// Model and module see chains of successors alone.
void Learn(Training& training) {
  constexpr int64_t kSequences = 8, kLength = 16;
  for (int32_t step = 0; step < 80; ++step) {
    std::vector<int32_t> tokens;
    for (int32_t s = 0; s < kSequences; ++s) {
      int32_t token = (step * 11 + s * 5) % kVocab;
      for (int64_t i = 0; i <= kLength; ++i, token = After(token)) tokens.push_back(token);
    }
    const auto metrics = training.trainer->Step(
        {.tokens = tokens, .sequences = kSequences, .length = kLength, .document_starts = {}});
    ASSERT_TRUE(metrics.ok()) << metrics.status();
  }
}

TEST(TrainedDrafts, AreKeptAndSaveSteps) {
  TrainConfig config;
  config.steps = 80;
  config.schedule.lr = 1e-2;
  config.mtp_loss_weight = 0.3;
  Training training(config);
  Learn(training);
  const auto backend = *MakeBackend({.threads = 2, .batch_invariant = true});
  const auto stream = backend->NewStream(StreamKind::kCompute);
  Model model(training.model->config(), *backend, *stream,
              {.storage = {.act = DType::kF32, .training = false}});
  for (size_t i = 0; i < model.parameters().all().size(); ++i) {
    const Parameter& from = *training.model->parameters().all()[i];
    SetParameter(*backend, *stream, *model.parameters().all()[i], 0,
                 GetParameter(*training.backend, *training.stream, from, 0, from.shape().elements()));
  }
  Decoder plain(model, *backend, *stream, {.exact = true});
  Decoder drafting(model, *backend, *stream, {.exact = true, .drafts = true});
  std::vector<GenerateRequest> requests;
  for (int32_t i = 0; i < 8; ++i) {
    requests.push_back({.prompt = {i, After(i), After(After(i))},
                        .max_new = 24,
                        .sampling = {.temperature = i % 2 == 0 ? 1.0 : 0.0, .seed = 3},
                        .sequence = static_cast<uint64_t>(i)});
  }
  const auto want = *Generate(plain, requests, {});
  const auto got = *Generate(drafting, requests, {});
  int64_t drafts = 0, accepted = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
    drafts += got[i].drafts;
    accepted += got[i].accepted_drafts;
  }
  EXPECT_GT(static_cast<double>(accepted), 0.8 * static_cast<double>(drafts));
  // One step a token without drafts, but for the first of each.
  EXPECT_LT(static_cast<double>(drafts), 0.6 * 23 * 8);
}

}  // namespace
}  // namespace moebius
