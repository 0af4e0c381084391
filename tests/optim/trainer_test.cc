#include "optim/trainer.h"

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "gtest/gtest.h"
#include "tests/optim/training.h"

namespace moebius {
namespace {

TrainConfig Config() {
  TrainConfig c;
  c.steps = 20;
  c.schedule.lr = 1e-2;
  c.bias_update_speed = 0.01;
  return c;
}

TEST(Trainer, LowersTheLossOnWhatItSees) {
  Training t(Config());
  const double first = t.Step(0).loss;
  double last = first;
  for (int i = 0; i < 30; ++i) last = t.Step(0).loss;
  EXPECT_LT(last, 0.5 * first);
}

TEST(Trainer, GivesTheSameBitsWithAnyNumberOfThreads) {
  std::vector<std::vector<float>> weights;
  for (const int threads : {1, 2, 3}) {
    Training t(Config(), threads);
    for (int i = 0; i < 4; ++i) t.Step(i);
    weights.push_back(t.Weights());
  }
  EXPECT_EQ(weights[0], weights[1]);
  EXPECT_EQ(weights[0], weights[2]);
}

TEST(Trainer, SplittingABatchIntoMicrobatchesChangesNothingBeyondRounding) {
  TrainConfig split = Config();
  split.microbatch_sequences = 1;
  Training whole(Config()), parts(split);
  for (int i = 0; i < 3; ++i) {
    const StepMetrics a = whole.Step(i), b = parts.Step(i);
    EXPECT_NEAR(a.loss, b.loss, 1e-5 * a.loss);
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-4 * a.grad_norm);
    EXPECT_NEAR(a.mtp_loss, b.mtp_loss, 1e-5 * a.mtp_loss);
    EXPECT_NEAR(a.balance_loss, b.balance_loss, 1e-5 * a.balance_loss);
    EXPECT_EQ(a.expert_counts, b.expert_counts);
  }
}

TEST(Trainer, SkipsAStepWithBadNumbersWithoutMovingAnythingButConsumesItsData) {
  Training t(Config());
  t.Step(0);
  Parameter& gain = *t.model->parameters().all().back();
  const std::vector<float> good = GetParameter(*t.backend, *t.stream, gain, 0, gain.shape().elements());
  std::vector<float> bad = good;
  bad[0] = std::numeric_limits<float>::quiet_NaN();
  SetParameter(*t.backend, *t.stream, gain, 0, bad);
  const StepMetrics m = t.Step(1);
  EXPECT_TRUE(m.skipped);
  EXPECT_EQ(t.trainer->state().skipped_steps, 1);
  EXPECT_EQ(t.trainer->state().bad_in_a_row, 1);
  EXPECT_EQ(t.trainer->state().step, 2);
  EXPECT_EQ(t.trainer->state().updates, 1);
  EXPECT_EQ(t.trainer->state().sequences, 8);
  SetParameter(*t.backend, *t.stream, gain, 0, good);
  // Gradients were cleared: the next step is the one that a run without the bad step makes.
  Training other(Config());
  other.Step(0);
  const StepMetrics after = t.Step(2), expected = other.Step(2);
  EXPECT_FALSE(after.skipped);
  EXPECT_EQ(t.trainer->state().bad_in_a_row, 0);
  EXPECT_EQ(after.loss, expected.loss);
  EXPECT_EQ(after.grad_norm, expected.grad_norm);
  // Moments were left alone too: what that step's update made of the weights shows in the one after it.
  EXPECT_EQ(t.Step(3).loss, other.Step(3).loss);
}

TEST(Trainer, MovesTheSelectionBiasAgainstTheLoad) {
  Training t(Config());
  const StepMetrics m = t.Step(0);
  const std::vector<const MoeMlp*> layers = t.model->moe_layers();
  ASSERT_EQ(layers.size(), 2u);  // one MoE layer, one MTP module
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const Parameter& bias = *layers[layer]->parameters().bias;
    const std::vector<float> b = GetParameter(*t.backend, *t.stream, bias, 0, 8);
    double mean = 0;
    for (const int64_t count : m.expert_counts[layer]) mean += static_cast<double>(count) / 8;
    for (int e = 0; e < 8; ++e) {
      const double difference = mean - static_cast<double>(m.expert_counts[layer][e]);
      EXPECT_FLOAT_EQ(b[e], difference > 0 ? 0.01f : difference < 0 ? -0.01f : 0.0f);
    }
  }
}

TEST(Trainer, LeavesMtpModulesAloneWithoutTheirLoss) {
  TrainConfig c = Config();
  c.mtp_loss_weight = 0;
  Training t(c);
  const auto mtp_values = [&] {
    std::vector<std::vector<float>> out;
    for (const auto& p : t.model->parameters().all()) {
      if (p->name().find("model.layers.2.") == std::string::npos) continue;
      out.push_back(GetParameter(*t.backend, *t.stream, *p, 0, p->shape().elements()));
    }
    return out;
  };
  const std::vector<std::vector<float>> before = mtp_values();
  ASSERT_FALSE(before.empty());
  const StepMetrics m = t.Step(0);
  EXPECT_EQ(m.mtp_loss, 0);
  EXPECT_EQ(m.expert_counts.size(), 1u);
  EXPECT_EQ(mtp_values(), before);
}

TEST(Trainer, ClipsTheGlobalNorm) {
  TrainConfig c = Config();
  c.clip_norm = 0.1;
  c.schedule.lr = 1;
  c.bias_update_speed = 0;
  c.optimizer.epsilon = 100;  // far above every gradient: the update is proportional to it
  c.optimizer.weight_decay = 0;
  TrainConfig unclipped = c;
  unclipped.clip_norm = 0;
  Training a(c), b(unclipped);
  const std::vector<float> start = a.Weights();
  const StepMetrics m = a.Step(0);
  b.Step(0);
  ASSERT_GT(m.grad_norm, 0.2);
  const std::vector<float> wa = a.Weights(), wb = b.Weights();
  double moved = 0, moved_unclipped = 0;
  for (size_t i = 0; i < start.size(); ++i) {
    moved += std::fabs(wa[i] - start[i]);
    moved_unclipped += std::fabs(wb[i] - start[i]);
  }
  const double expected = 0.1 / (m.grad_norm + 1e-6) * moved_unclipped;
  EXPECT_NEAR(moved, expected, 0.05 * expected);
}

TEST(Trainer, KeepsAMovingAverageOfTheWeights) {
  TrainConfig c = Config();
  c.optimizer.ema_decay = 0.5;
  Training t(c);
  const AdamWOptimizer::State& state = t.trainer->optimizer().states()[0];
  const int64_t n = state.slice.count;
  std::vector<float> w0 = GetParameter(*t.backend, *t.stream, *state.slice.parameter, 0, n);
  t.Step(0);
  const std::vector<float> w1 = GetParameter(*t.backend, *t.stream, *state.slice.parameter, 0, n);
  std::vector<float> ema(n);
  t.backend->CopyToHost(*t.stream, state.ema.view().Reshape({n}), ema.data());
  for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(ema[i], 0.5f * w0[i] + 0.5f * w1[i], 1e-6f);
}

TEST(Trainer, TrainsInBf16AndWithBf16Moments) {
  TrainConfig c = Config();
  c.optimizer.moments = DType::kBF16;
  Training t(c, 2, 1, DType::kBF16);
  const double first = t.Step(0).loss;
  double last = first;
  for (int i = 0; i < 30; ++i) last = t.Step(0).loss;
  EXPECT_LT(last, 0.6 * first);
}

TEST(Trainer, TrainsInFp8CloseToFp32WithTheSameBitsWithAnyNumberOfThreads) {
  TrainConfig c = Config();
  c.rounding = Rounding::kFp8;
  Training t(c), plain(Config()), other(c, 3);
  const double first = t.Step(0).loss;
  const double first_plain = plain.Step(0).loss;
  EXPECT_NEAR(first, first_plain, 0.01 * first_plain);
  EXPECT_NE(first, first_plain);
  EXPECT_EQ(other.Step(0).loss, first);
  double last = first;
  for (int i = 0; i < 30; ++i) {
    last = t.Step(0).loss;
    EXPECT_EQ(other.Step(0).loss, last);
  }
  EXPECT_LT(last, 0.5 * first);
}

TEST(Trainer, EvaluatesWithoutRoundingWhateverItTrainsIn) {
  TrainConfig c = Config();
  c.rounding = Rounding::kFp8;
  Training fp8(c), plain(Config());
  std::vector<int32_t> ids(50);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7 % 40);
  const std::vector<int32_t> starts = {0, 20, 50};
  EXPECT_EQ(*fp8.trainer->Evaluate(ids, starts), *plain.trainer->Evaluate(ids, starts));
}

// A rank that leaves a failed world has reductions and messages under way. The table is so large that its
// memory is given back to the system when it is freed: a write to it then ends the test.
TEST(Trainer, IsThereUntilWhatIsQueuedOnItsStreamsIsDone) {
  ModelConfig config = TinyConfig();
  config.vocab_size = 1 << 20;
  config.tie_word_embeddings = true;
  config.num_nextn_predict_layers = 0;
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  SoloWorld world;
  ModelOptions options;
  options.storage = {.act = DType::kF32, .training = true};
  std::unique_ptr<Trainer> trainer = *Trainer::New(*world, *backend, *stream, config, options, {}, Config());
  float* const gradient = trainer->model().embedding_table()->grad().as<float>();
  std::atomic<bool> leaves = false, wrote = false;
  trainer->mesh().stream("reduce").Enqueue([&] {
    while (!leaves) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    *gradient = 1;
    wrote = true;
  });
  leaves = true;
  trainer.reset();
  EXPECT_TRUE(wrote);
}

// What a document's first tokens are moves the losses of its own tokens and of the next document's first one,
// which is foretold from its end; under the mask no others.
TEST(Trainer, EvaluationUnderADocumentMaskDoesNotSeeTheDocumentBefore) {
  Training t(Config());
  for (int i = 0; i < 5; ++i) t.Step(i);
  const std::vector<int32_t> a = {3, 1, 4, 1, 5}, other = {9, 2, 6, 5, 5}, b = {8, 9, 7, 9, 3};
  const auto joined = [](std::vector<int32_t> x, const std::vector<int32_t>& y) {
    x.insert(x.end(), y.begin(), y.end());
    return x;
  };
  const std::vector<int32_t> whole = {0, 10}, split = {0, 5, 10}, first = {0, 6};
  const auto change = [&](std::span<const int32_t> mask) {
    return *t.trainer->Evaluate(joined(other, b), whole, mask) -
           *t.trainer->Evaluate(joined(a, b), whole, mask);
  };
  const double own =
      *t.trainer->Evaluate(joined(other, {b[0]}), first) - *t.trainer->Evaluate(joined(a, {b[0]}), first);
  EXPECT_NEAR(change(split), own, 1e-4);
  EXPECT_GT(std::abs(change({}) - own), 1e-3);
}

}  // namespace
}  // namespace moebius
