// Finite differences through whole models: every parameter of every family.
#include <cmath>

#include "core/base/random.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "tests/core/model/tiny_models.h"

namespace moebius {
namespace {

constexpr int64_t kSequences = 2, kLength = 7;

class ModelGradientTest : public testing::TestWithParam<std::string> {};

// Chosen experts and counted shares: where they change, the objective jumps.
std::vector<int32_t> Choices(Bench& bench, const ModelConfig& config, Microbatch& mb, int slots) {
  std::vector<int32_t> out;
  for (int slot = 0; config.n_routed_experts > 0 && slot < slots; ++slot) {
    const TensorView view = mb.saved[slot];
    if (!view) continue;
    if (view.dtype == DType::kI32) {
      const std::vector<int32_t> values = bench.ReadInts(view);
      out.insert(out.end(), values.begin(), values.end());
    } else if (view.dtype == DType::kF32 && view.shape == Shape{kSequences, config.n_routed_experts}) {
      for (const float f : bench.Read(view)) out.push_back(static_cast<int32_t>(std::lround(f * 1e4f)));
    }
  }
  return out;
}

TEST_P(ModelGradientTest, DifferencesOfTheObjectiveAgreeWithTheBackward) {
  const ModelConfig config = TinyConfig(GetParam());
  TinyModel tiny(config);
  Microbatch mb = tiny.NewMicrobatch();
  const Objective objective = FullObjective(config, kSequences, kLength);
  const std::vector<int32_t> tokens = TinyTokens(kSequences, kLength);
  const int depths = static_cast<int>(config.num_nextn_predict_layers);
  // One sequence is two documents.
  mb.Load(tiny.bench.stream(), tokens, kSequences, kLength, depths, {{3}, {}});
  tiny.model.Forward(tiny.bench.context(), objective, mb);
  EXPECT_EQ(tiny.bench.scratch().bytes(), 0);
  tiny.model.Backward(tiny.bench.context(), objective, mb, Model::Weights::kNow);
  EXPECT_EQ(tiny.bench.scratch().bytes(), 0);
  EXPECT_EQ(mb.saved.transient().bytes(), 0);
  mb.saved.Reset();

  Objective forward = objective;
  forward.gradients = false;
  std::vector<int32_t> choices;
  const auto evaluate = [&] {
    tiny.model.Forward(tiny.bench.context(), forward, mb);
    const double value = ObjectiveValue(tiny.bench, objective, mb);
    choices = Choices(tiny.bench, config, mb, tiny.model.num_slots());
    mb.saved.Reset();
    return value;
  };
  evaluate();
  const std::vector<int32_t> reference = choices;

  for (const auto& parameter : tiny.model.parameters().all()) {
    if (!parameter->spec().trainable) continue;
    const int64_t n = parameter->shape().elements();
    const std::vector<float> base = GetParameter(tiny.bench.backend(), tiny.bench.stream(), *parameter, 0, n);
    const std::vector<float> gradient = tiny.bench.Read(parameter->grad());
    double size = 0, unit = 0;
    for (const float g : gradient) size += static_cast<double>(g) * g;
    for (const float b : base) unit += static_cast<double>(b) * b;
    size = std::sqrt(size);
    unit = std::max(std::sqrt(unit / n), 0.05);
    int taken = 0;
    for (int direction = 0; direction < 3; ++direction) {
      const RandomStream random(37, Concat(parameter->name(), direction));
      double h = 0.004 * unit;
      for (int halving = 0; halving < 6; ++halving, h /= 2) {
        double numeric = 0, analytic = 0;
        bool same = true;
        for (const auto& [at, weight] :
             {std::pair{1.0, 8.0 / 12}, {-1.0, -8.0 / 12}, {2.0, -1.0 / 12}, {-2.0, 1.0 / 12}}) {
          std::vector<float> moved = base;
          for (int64_t i = 0; i < n; ++i)
            moved[i] += static_cast<float>(at * h * (random.Bits(i) & 1 ? 1 : -1));
          SetParameter(tiny.bench.backend(), tiny.bench.stream(), *parameter, 0, moved);
          numeric += weight / h * evaluate();
          same &= choices == reference;
          for (int64_t i = 0; i < n; ++i) {
            analytic += weight / h * gradient[i] * (static_cast<double>(moved[i]) - base[i]);
          }
        }
        SetParameter(tiny.bench.backend(), tiny.bench.stream(), *parameter, 0, base);
        if (!same) continue;
        ++taken;
        EXPECT_LE(std::abs(numeric - analytic), 2e-3 * size + 3e-7 / h)
            << parameter->name() << ": differences give " << numeric << ", the backward " << analytic
            << ", norm of the gradient " << size;
        break;
      }
    }
    EXPECT_GE(taken, 1) << parameter->name() << ": choices changed along every direction";
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ModelGradientTest, testing::ValuesIn(TinyNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace moebius
