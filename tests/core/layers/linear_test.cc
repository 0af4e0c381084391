#include "core/layers/linear.h"

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"

namespace moebius {
namespace {

SubjectFactory MakeLinear(int64_t in, int64_t out, bool bias) {
  return [=](Bench&, ParameterSet& set, SlotCounter& slots) {
    Parameter* w = AddParameter(set, "weight", {out, in});
    Parameter* b = bias ? AddParameter(set, "bias", {out}, Init::kZeros) : nullptr;
    return std::make_unique<LayerSubject>(std::make_unique<Linear>(slots, w, b), in, out);
  };
}

TEST(LinearTest, PassesTheGradientChecker) { CheckGradients(MakeLinear(24, 40, false)); }

TEST(LinearTest, PassesTheGradientCheckerWithBias) { CheckGradients(MakeLinear(33, 17, true)); }

TEST(LinearTest, PassesTheGradientCheckerInsideWiderRows) {
  CheckGradients(MakeLinear(24, 40, true), {.padded_rows = true});
}

TEST(LinearTest, MultipliesByTheTransposedWeightAndAddsTheBias) {
  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  Parameter* w = AddParameter(set, "w", {2, 3});
  Parameter* b = AddParameter(set, "b", {2}, Init::kZeros);
  const Linear linear(slots, w, b);
  set.Allocate(bench.backend(), bench.stream(), {});
  SetParameter(bench.backend(), bench.stream(), *w, 0, {1, 2, 3, 4, 5, 6});
  SetParameter(bench.backend(), bench.stream(), *b, 0, {10, 20});
  const OwnedLayout layout = MakeLayout(bench, {0, 1});
  Saved saved(bench.memory(), slots.count());
  const Tensor x = bench.Floats(DType::kF32, {1, 3}, {1, 0, -1});
  const Tensor y = bench.Floats(DType::kF32, {1, 2}, {0, 0});
  linear.Forward({bench.context(), layout.layout, saved}, x, y);
  EXPECT_EQ(bench.Read(y), (std::vector<float>{8, 18}));
}

}  // namespace
}  // namespace moebius
