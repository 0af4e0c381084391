#include "core/layers/rms_norm.h"

#include <cmath>

#include "core/backend/ops.h"
#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"

namespace moebius {
namespace {

SubjectFactory MakeNorm(int64_t width) {
  return [=](Bench&, ParameterSet& set, SlotCounter& slots) {
    Parameter* gain = AddParameter(set, "gain", {width}, Init::kOnes);
    return std::make_unique<LayerSubject>(std::make_unique<RmsNormLayer>(slots, gain, 1e-3f), width, width);
  };
}

// s = x + add and y = norm(s) are both outputs; the gradient of s enters as the residual.
class FusedAdd final : public Subject {
 public:
  FusedAdd(SlotCounter& slots, Parameter* gain) : norm_(slots, gain, 1e-6f), width_(gain->shape()[0]) {}
  std::vector<int64_t> input_widths() const override { return {width_, width_}; }
  std::vector<int64_t> output_widths() const override { return {width_, width_}; }
  void Forward(const Pass& pass, std::span<const TensorView> x,
               std::span<const TensorView> y) const override {
    // The sum has to stay valid until the backward, the caller's y need not.
    const TensorView sum = pass.saved.activations().New(x[0].dtype, x[0].shape);
    norm_.ForwardAdd(pass, x[0], x[1], sum, y[1]);
    Cast(pass.context, sum, y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView> dx) const override {
    norm_.BackwardInputAdd(pass, dy[1], dy[0], dx[0]);
    Cast(pass.context, dx[0], dx[1]);
  }
  void BackwardWeight(const Pass& pass) const override { norm_.BackwardWeight(pass); }

 private:
  RmsNormLayer norm_;
  int64_t width_;
};

TEST(RmsNormTest, PassesTheGradientChecker) { CheckGradients(MakeNorm(48)); }

TEST(RmsNormTest, PassesTheGradientCheckerAtAnOddWidth) { CheckGradients(MakeNorm(37)); }

TEST(RmsNormTest, PassesTheGradientCheckerInsideWiderRows) {
  CheckGradients(MakeNorm(32), {.padded_rows = true});
}

TEST(RmsNormTest, PassesTheGradientCheckerWithTheResidualFusedIn) {
  CheckGradients([](Bench&, ParameterSet& set, SlotCounter& slots) {
    return std::make_unique<FusedAdd>(slots, AddParameter(set, "gain", {40}, Init::kOnes));
  });
}

TEST(RmsNormTest, DividesByTheRootMeanSquare) {
  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  RmsNormLayer norm(slots, AddParameter(set, "gain", {4}, Init::kOnes), 0.75f);
  set.Allocate(bench.backend(), bench.stream(), {});
  SetParameter(bench.backend(), bench.stream(), *set.all()[0], 0, {1, 2, 1, 1});
  const OwnedLayout layout = MakeLayout(bench, {0, 1});
  Saved saved(bench.memory(), slots.count());
  const Tensor x = bench.Floats(DType::kF32, {1, 4}, {3, 1, -1, 2});  // mean of squares 3.75, root of 4.5
  const Tensor y = bench.Floats(DType::kF32, {1, 4}, {0, 0, 0, 0});
  norm.Forward({bench.context(), layout.layout, saved}, x, y);
  const double root = std::sqrt(4.5);
  const std::vector<float> got = bench.Read(y);
  const double want[] = {3 / root, 2 / root, -1 / root, 2 / root};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(got[i], want[i], 1e-6) << i;
}

}  // namespace
}  // namespace moebius
