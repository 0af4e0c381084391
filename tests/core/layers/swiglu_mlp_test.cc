#include "core/layers/swiglu_mlp.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"

namespace moebius {
namespace {

TEST(SwiGluMlpTest, PassesTheGradientChecker) {
  CheckGradients([](Bench&, ParameterSet& set, SlotCounter& slots) {
    Parameter* gate_up = AddParameter(set, "gate_up", {2 * 40, 24});
    Parameter* down = AddParameter(set, "down", {24, 40});
    return std::make_unique<LayerSubject>(std::make_unique<SwiGluMlp>(slots, gate_up, down), 24, 24);
  });
}

TEST(SwiGluMlpTest, GateComesBeforeUp) {
  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  Parameter* gate_up = AddParameter(set, "gate_up", {2, 1});
  SwiGluMlp mlp(slots, gate_up, AddParameter(set, "down", {1, 1}));
  set.Allocate(bench.backend(), bench.stream(), {});
  SetParameter(bench.backend(), bench.stream(), *gate_up, 0, {2, 3});
  SetParameter(bench.backend(), bench.stream(), *set.all()[1], 0, {5});
  const OwnedLayout layout = MakeLayout(bench, {0, 1});
  Saved saved(bench.memory(), slots.count());
  const Tensor x = bench.Floats(DType::kF32, {1, 1}, {0.5});
  const Tensor y = bench.Floats(DType::kF32, {1, 1}, {0});
  mlp.Forward({bench.context(), layout.layout, saved}, x, y);
  EXPECT_NEAR(bench.Read(y)[0], 5 * (1 / (1 + std::exp(-1.0))) * 1.5, 1e-5);
}

}  // namespace
}  // namespace moebius
