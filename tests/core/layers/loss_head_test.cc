#include "core/layers/loss_head.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/core/layers/bench.h"

namespace moebius {
namespace {

struct Expected {
  std::vector<float> losses, dx, dw;
};

// Cross-entropy and the gradients of scale * sum(losses), in double.
Expected InDouble(const std::vector<float>& x, const std::vector<float>& w,
                  const std::vector<int32_t>& targets, int64_t hidden, double scale) {
  const int64_t vocab = w.size() / hidden, tokens = targets.size();
  std::vector<double> dw(w.size(), 0.0), logits(vocab);
  Expected out;
  for (int64_t t = 0; t < tokens; ++t) {
    double top = -1e300;
    for (int64_t v = 0; v < vocab; ++v) {
      logits[v] = 0;
      for (int64_t i = 0; i < hidden; ++i)
        logits[v] += static_cast<double>(x[t * hidden + i]) * w[v * hidden + i];
      top = std::max(top, logits[v]);
    }
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit - top);
    const double lse = top + std::log(sum);
    const bool counts = targets[t] >= 0;
    out.losses.push_back(counts ? static_cast<float>(lse - logits[targets[t]]) : 0.0f);
    std::vector<double> dx(hidden, 0.0);
    for (int64_t v = 0; v < vocab && counts; ++v) {
      const double d = scale * (std::exp(logits[v] - lse) - (v == targets[t] ? 1 : 0));
      for (int64_t i = 0; i < hidden; ++i) {
        dx[i] += d * w[v * hidden + i];
        dw[v * hidden + i] += d * x[t * hidden + i];
      }
    }
    for (const double value : dx) out.dx.push_back(static_cast<float>(value));
  }
  out.dw.assign(dw.begin(), dw.end());
  return out;
}

void Compare(int64_t vocab, int64_t hidden, int64_t tokens, DType act, double tolerance) {
  Bench bench;
  ParameterSet set;
  Parameter* weight = AddParameter(set, "head", {vocab, hidden});
  set.Allocate(bench.backend(), bench.stream(), {.act = act});
  Randomize(bench, set, 2);
  const LossHead head(weight);
  const std::vector<float> x = RoundedToBf16(Normals("x", tokens * hidden));
  std::vector<int32_t> targets(tokens);
  for (int64_t t = 0; t < tokens; ++t) targets[t] = t % 5 == 3 ? -1 : static_cast<int32_t>(t * 7919 % vocab);
  const float scale = 0.25f;
  const Expected want = InDouble(x, bench.Read(weight->weight()), targets, hidden, scale);

  const Tensor x_tensor = bench.Floats(act, {tokens, hidden}, x);
  const Tensor target_tensor = bench.Ints(targets);
  const Tensor losses(bench.memory(), DType::kF32, {tokens}), dx(bench.memory(), act, {tokens, hidden});
  head.Run(bench.context(), {.x = x_tensor, .targets = target_tensor, .losses = losses});
  EXPECT_LE(RelativeDistance(bench.Read(losses), want.losses), std::min(tolerance, 1e-5)) << "losses alone";
  EXPECT_EQ(bench.Read(weight->grad()), std::vector<float>(vocab * hidden, 0.0f))
      << "a forward alone moves no gradient";

  head.Run(bench.context(),
           {.x = x_tensor, .targets = target_tensor, .losses = losses, .scale = scale, .dx = dx});
  EXPECT_LE(RelativeDistance(bench.Read(losses), want.losses), std::min(tolerance, 1e-5));
  EXPECT_LE(RelativeDistance(bench.Read(dx), want.dx), tolerance);
  EXPECT_LE(RelativeDistance(bench.Read(weight->grad()), want.dw), tolerance);
  EXPECT_EQ(bench.Read(x_tensor), x) << "x was changed";

  // A second run adds to the weight's gradient and overwrites dx.
  head.Run(bench.context(),
           {.x = x_tensor, .targets = target_tensor, .losses = losses, .scale = scale, .dx = dx});
  std::vector<float> twice = want.dw;
  for (float& value : twice) value *= 2;
  EXPECT_LE(RelativeDistance(bench.Read(weight->grad()), twice), tolerance);
  EXPECT_LE(RelativeDistance(bench.Read(dx), want.dx), tolerance);
  EXPECT_EQ(bench.scratch().bytes(), 0);
}

TEST(LossHeadTest, GivesTheLossesAndGradientsOfTheFormula) { Compare(50, 16, 23, DType::kF32, 2e-6); }

TEST(LossHeadTest, GivesThemInBf16) { Compare(50, 16, 23, DType::kBF16, 0.02); }

// 65,536 words make chunks of 64 tokens: one token less than a chunk, whole chunks, a rest of one.
TEST(LossHeadTest, GivesThemAcrossChunks) {
  for (const int64_t tokens : {63, 64, 65, 129}) Compare(65536, 4, tokens, DType::kF32, 1e-5);
}

TEST(LossHeadTest, GivesThemAcrossChunksInBf16) { Compare(65536, 4, 65, DType::kBF16, 0.02); }

// The objective with a teacher, whose head has `padding` more words: in double, along random directions of x.
void CompareTaught(int64_t vocab, int64_t padding, int64_t tokens, DType act, double tolerance) {
  Bench bench;
  const int64_t hidden = 8, its_hidden = 12;
  ParameterSet set;
  Parameter* weight = AddParameter(set, "head", {vocab, hidden});
  Parameter* its_weight = AddParameter(set, "teacher", {vocab + padding, its_hidden});
  set.Allocate(bench.backend(), bench.stream(), {.act = act});
  Randomize(bench, set, 2);
  const LossHead head(weight), its_head(its_weight);
  const std::vector<float> x = RoundedToBf16(Normals("x", tokens * hidden));
  const std::vector<float> its_x = RoundedToBf16(Normals("teacher's x", tokens * its_hidden));
  const std::vector<float> w = bench.Read(weight->weight()), its_w = bench.Read(its_weight->weight());
  const float scale = 0.25f, soft = 0.5f, by = 0.5f;
  const auto log_softmax = [&](const std::vector<float>& of_x, const std::vector<float>& of_w, int64_t t,
                               double inverse_temperature) {
    const int64_t n = std::ssize(of_x) / tokens;
    std::vector<double> out(vocab, 0.0);
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) {
      for (int64_t i = 0; i < n; ++i) out[v] += static_cast<double>(of_x[t * n + i]) * of_w[v * n + i];
      out[v] *= inverse_temperature;
      sum += std::exp(out[v]);
    }
    for (double& value : out) value -= std::log(sum);
    return out;
  };
  std::vector<int32_t> targets(tokens);
  std::vector<float> divergences, dx(tokens * hidden, 0.0f), dw(w.size(), 0.0f);
  for (int64_t t = 0; t < tokens; ++t) {
    targets[t] = static_cast<int32_t>(t * 7919 % vocab);
    const std::vector<double> p = log_softmax(x, w, t, by), q = log_softmax(its_x, its_w, t, by);
    const std::vector<double> hard = log_softmax(x, w, t, 1);
    double divergence = 0;
    for (int64_t v = 0; v < vocab; ++v) {
      divergence += std::exp(q[v]) * (q[v] - p[v]);
      const double d = soft * by * (std::exp(p[v]) - std::exp(q[v])) +
                       scale * (std::exp(hard[v]) - (v == targets[t] ? 1 : 0));
      for (int64_t i = 0; i < hidden; ++i) {
        dx[t * hidden + i] += static_cast<float>(d * w[v * hidden + i]);
        dw[v * hidden + i] += static_cast<float>(d * x[t * hidden + i]);
      }
    }
    divergences.push_back(static_cast<float>(divergence));
  }
  const Tensor x_tensor = bench.Floats(act, {tokens, hidden}, x);
  const Tensor its_x_tensor = bench.Floats(act, {tokens, its_hidden}, its_x);
  const Tensor target_tensor = bench.Ints(targets), losses(bench.memory(), DType::kF32, {tokens});
  const Tensor divergence_tensor(bench.memory(), DType::kF32, {tokens});
  const Tensor agreements(bench.memory(), DType::kF32, {tokens});
  const Tensor dx_tensor(bench.memory(), act, {tokens, hidden});
  head.Run(bench.context(),
           {.x = x_tensor,
            .targets = target_tensor,
            .losses = losses,
            .scale = scale,
            .dx = dx_tensor,
            .teacher = {.head = &its_head, .x = its_x_tensor, .inverse_temperature = by, .scale = soft},
            .divergences = divergence_tensor,
            .agreements = agreements});
  EXPECT_LE(RelativeDistance(bench.Read(divergence_tensor), divergences), std::min(tolerance, 1e-5));
  EXPECT_LE(RelativeDistance(bench.Read(dx_tensor), dx), tolerance);
  EXPECT_LE(RelativeDistance(bench.Read(weight->grad()), dw), tolerance);
  EXPECT_EQ(bench.Read(its_weight->grad()), std::vector<float>(its_w.size(), 0.0f))
      << "a teacher learns nothing";
  EXPECT_EQ(bench.scratch().bytes(), 0);
}

TEST(LossHeadTest, ATeacherAddsItsDivergence) {
  CompareTaught(50, 0, 23, DType::kF32, 5e-6);
  CompareTaught(50, 7, 23, DType::kF32, 5e-6);
  CompareTaught(50, 7, 23, DType::kBF16, 0.02);
}

TEST(LossHeadTest, ATeacherTeachesAcrossChunks) { CompareTaught(65536, 3, 65, DType::kF32, 2e-5); }

TEST(LossHeadTest, NoTokensAreNoLoss) {
  Bench bench;
  ParameterSet set;
  Parameter* weight = AddParameter(set, "head", {10, 4});
  set.Allocate(bench.backend(), bench.stream(), {});
  Randomize(bench, set);
  const Tensor x(bench.memory(), DType::kF32, {0, 4}), ids(bench.memory(), DType::kI32, {0}),
      losses(bench.memory(), DType::kF32, {0});
  LossHead(weight).Run(bench.context(), {.x = x, .targets = ids, .losses = losses, .scale = 1, .dx = x});
  EXPECT_EQ(bench.Read(weight->grad()), std::vector<float>(40, 0.0f));
}

TEST(LossHeadTest, LogitsAreTheProductWithTheTransposedWeight) {
  Bench bench;
  ParameterSet set;
  Parameter* weight = AddParameter(set, "head", {2, 3});
  set.Allocate(bench.backend(), bench.stream(), {});
  SetParameter(bench.backend(), bench.stream(), *weight, 0, {1, 2, 3, 4, 5, 6});
  const Tensor x = bench.Floats(DType::kF32, {1, 3}, {1, 1, -1});
  const Tensor logits(bench.memory(), DType::kF32, {1, 2});
  LossHead(weight).Logits(bench.context(), x, logits);
  EXPECT_EQ(bench.Read(logits), (std::vector<float>{0, 3}));
}

}  // namespace
}  // namespace moebius
