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
