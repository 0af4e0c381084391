// RMSNorm and rotary embeddings against double precision.
#include <cmath>
#include <memory>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/reference.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

double NormTolerance(DType act) { return ToleranceOf(act).elementwise; }

class NormTest : public testing::TestWithParam<DType> {
 protected:
  DType act() const { return GetParam(); }
  std::unique_ptr<Backend> backend = NewTestBackend();
  std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
};
INSTANTIATE_TEST_SUITE_P(Act, NormTest, testing::Values(DType::kF32, DType::kBF16));

constexpr float kEpsilon = 1e-6f;

TEST_P(NormTest, MeetsDoublePrecisionForwardAndBackward) {
  for (const int64_t rows : {1, 5, 333}) {
    for (const int64_t n : {1, 16, 77, 520}) {
      // Each operand is a slice of a wider one.
      const Tensor xs = RandomTensor(*backend, act(), {rows, n + 3}, "x"),
                   ys = DirtyTensor(*backend, act(), {rows, n + 6});
      const Tensor gain = RandomTensor(*backend, DType::kF32, {n}, "gain");
      const Tensor rstd = DirtyTensor(*backend, DType::kF32, {rows}),
                   dgain = DirtyTensor(*backend, DType::kF32, {n});
      const Tensor dys = RandomTensor(*backend, act(), {rows, n + 1}, "dy"),
                   dx = DirtyTensor(*backend, act(), {rows, n});
      const TensorView x = xs.view().Columns(2, n), y = ys.view().Columns(5, n),
                       dy = dys.view().Columns(0, n);
      backend->RmsNorm(*stream, {.x = x, .gain = gain, .y = y, .rstd = rstd, .epsilon = kEpsilon});
      const auto want = ReferenceNorm(Values(x), Values(gain), rows, n, kEpsilon);
      ExpectNear(Values(y), want.y, NormTolerance(act()), "y");
      ExpectNear(Values(rstd), want.rstd, 2e-6, "rstd");
      backend->RmsNormBackward(*stream,
                               {.x = x, .rstd = rstd, .gain = gain, .dy = dy, .dx = dx, .dgain = dgain});
      const auto grad = ReferenceNormBackward(Values(x), Values(gain), Values(dy), rows, n, kEpsilon);
      ExpectNear(Values(dx), grad.dx, NormTolerance(act()), "dx");
      ExpectNear(Values(dgain), grad.dgain, 2e-6, "dgain");
    }
  }
}

TEST_P(NormTest, AddsBeforeAndKeepsTheSum) {
  constexpr int64_t kRows = 40, kN = 130;
  const Tensor x = RandomTensor(*backend, act(), {kRows, kN}, "x"),
               add = RandomTensor(*backend, act(), {kRows, kN}, "add");
  const Tensor gain = RandomTensor(*backend, DType::kF32, {kN}, "gain"), rstd(*backend, DType::kF32, {kRows});
  const Tensor sum = DirtyTensor(*backend, act(), {kRows, kN}), y = DirtyTensor(*backend, act(), {kRows, kN});
  const RmsNormArgs args{
      .x = x, .add = add, .sum = sum, .gain = gain, .y = y, .rstd = rstd, .epsilon = kEpsilon};
  backend->RmsNorm(*stream, args);
  Doubles s = Values(x);
  for (size_t i = 0; i < s.size(); ++i) s[i] += Values(add)[i];
  ExpectNear(Values(sum), s, NormTolerance(act()), "sum");
  ExpectNear(Values(y), ReferenceNorm(Values(sum), Values(gain), kRows, kN, kEpsilon).y, NormTolerance(act()),
             "y");

  const Tensor again = DirtyTensor(*backend, act(), {kRows, kN}),
               without = DirtyTensor(*backend, act(), {kRows, kN});
  backend->RmsNorm(*stream, {.x = sum, .gain = gain, .y = again, .rstd = rstd, .epsilon = kEpsilon});
  EXPECT_TRUE(SameBits(y, again)) << "made again from the kept sum";
  backend->RmsNorm(*stream,
                   {.x = x, .add = add, .gain = gain, .y = without, .rstd = rstd, .epsilon = kEpsilon});
  EXPECT_TRUE(SameBits(y, without)) << "with the sum not kept";

  backend->RmsNorm(
      *stream, {.x = x, .add = add, .sum = x, .gain = gain, .y = without, .rstd = rstd, .epsilon = kEpsilon});
  EXPECT_TRUE(SameBits(x, sum)) << "the sum in place of x";
  EXPECT_TRUE(SameBits(y, without));
  backend->RmsNorm(*stream, {.x = x, .gain = gain, .y = x, .rstd = rstd, .epsilon = kEpsilon});
  EXPECT_TRUE(SameBits(x, y)) << "the result in place of x";
}

TEST_P(NormTest, TheGradientMayReplaceItsInputsAndAddsTheResidual) {
  constexpr int64_t kRows = 70, kN = 96;
  const Tensor x = RandomTensor(*backend, act(), {kRows, kN}, "x"),
               gain = RandomTensor(*backend, DType::kF32, {kN}, "gain");
  const Tensor y(*backend, act(), {kRows, kN}), rstd(*backend, DType::kF32, {kRows}),
      dgain(*backend, DType::kF32, {kN});
  const Tensor dy = RandomTensor(*backend, act(), {kRows, kN}, "dy"),
               dx = DirtyTensor(*backend, act(), {kRows, kN});
  const Tensor residual = RandomTensor(*backend, act(), {kRows, kN}, "residual");
  backend->RmsNorm(*stream, {.x = x, .gain = gain, .y = y, .rstd = rstd, .epsilon = kEpsilon});
  RmsNormBackwardArgs args{
      .x = x, .rstd = rstd, .gain = gain, .dy = dy, .residual = residual, .dx = dx, .dgain = dgain};
  backend->RmsNormBackward(*stream, args);
  Doubles want = ReferenceNormBackward(Values(x), Values(gain), Values(dy), kRows, kN, kEpsilon).dx;
  for (size_t i = 0; i < want.size(); ++i) want[i] += Values(residual)[i];
  ExpectNear(Values(dx), want, NormTolerance(act()), "dx");

  const Tensor old_residual = RandomTensor(*backend, act(), {kRows, kN}, "residual");
  args.dx = old_residual;
  args.residual = old_residual;
  backend->RmsNormBackward(*stream, args);
  EXPECT_TRUE(SameBits(old_residual, dx));
  args.residual = residual;
  args.dx = dy;
  backend->RmsNormBackward(*stream, args);
  EXPECT_TRUE(SameBits(dy, dx));
}

TEST_P(NormTest, NormalisesEachHeadWithTheSameBitsForAnyThreads) {
  constexpr int64_t kTokens = 150, kHeads = 7, kD = 40;
  const Tensor whole = RandomTensor(*backend, act(), {kTokens, kHeads, kD + 8}, "x");
  const TensorView x = whole.view().Columns(8, kD);
  const Tensor gain = RandomTensor(*backend, DType::kF32, {kD}, "gain");
  const Tensor dy = RandomTensor(*backend, act(), {kTokens, kHeads, kD}, "dy");
  std::vector<Tensor> ys, dgains;
  for (const auto& other : NewTestBackends()) {
    const Tensor rstd(*backend, DType::kF32, {kTokens * kHeads}), dx(*backend, act(), {kTokens, kHeads, kD});
    ys.push_back(DirtyTensor(*backend, act(), {kTokens, kHeads, kD}));
    dgains.push_back(DirtyTensor(*backend, DType::kF32, {kD}));
    other->RmsNorm(*stream, {.x = x, .gain = gain, .y = ys.back(), .rstd = rstd, .epsilon = kEpsilon});
    other->RmsNormBackward(*stream,
                           {.x = x, .rstd = rstd, .gain = gain, .dy = dy, .dx = dx, .dgain = dgains.back()});
    EXPECT_TRUE(SameBits(ys.front(), ys.back()));
    EXPECT_TRUE(SameBits(dgains.front(), dgains.back()));
  }
  ExpectNear(Values(ys.front()), ReferenceNorm(Values(x), Values(gain), kTokens * kHeads, kD, kEpsilon).y,
             NormTolerance(act()), "y");
}

class RopeTest : public testing::TestWithParam<std::tuple<DType, RopeStyle>> {};
INSTANTIATE_TEST_SUITE_P(Styles, RopeTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::Values(RopeStyle::kInterleaved, RopeStyle::kHalf)));

TEST_P(RopeTest, TurnsPairsByTheAngleOfThePositionAndBack) {
  const auto [act, style] = GetParam();
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  constexpr int64_t kTokens = 61, kHeads = 3, kPositions = 100;
  for (const int64_t d : {2, 6, 16, 32, 70}) {
    const Tensor cos(*backend, DType::kF32, {kPositions, d / 2}),
        sin(*backend, DType::kF32, {kPositions, d / 2});
    std::vector<int32_t> positions(kTokens);
    Doubles angles;
    for (int64_t t = 0; t < kTokens; ++t) positions[t] = static_cast<int32_t>(t * 37 % kPositions);
    const auto angle = [&](int64_t position, int64_t i) {
      return position * std::pow(10000.0, -2.0 * i / d);
    };
    for (int64_t p = 0; p < kPositions; ++p) {
      for (int64_t i = 0; i < d / 2; ++i) {
        SetAt(cos, p, i, std::cos(angle(p, i)));
        SetAt(sin, p, i, std::sin(angle(p, i)));
      }
    }
    for (const int32_t p : positions) {
      for (int64_t i = 0; i < d / 2; ++i) angles.push_back(angle(p, i));
    }
    const Tensor whole = RandomTensor(*backend, act, {kTokens, kHeads, d + 5}, "x");
    const TensorView x = whole.view().Columns(5, d);
    const Doubles before = Values(x), all_before = Values(whole);
    const Tensor position = Int32Tensor(*backend, positions);
    RopeArgs args{.x = x, .positions = position, .cos = cos, .sin = sin, .style = style};
    backend->Rope(*stream, args);
    ExpectNear(Values(x), ReferenceRope(before, angles, kTokens, kHeads, d, style), NormTolerance(act), "x");
    args.inverse = true;
    backend->Rope(*stream, args);
    ExpectNear(Values(x), before, 2 * NormTolerance(act), "back");
    for (int64_t r = 0; r < kTokens * kHeads; ++r) {
      for (int64_t c = 0; c < 5; ++c) ASSERT_EQ(ValueAt(whole, r, c), all_before[r * (d + 5) + c]);
    }
  }
}

}  // namespace
}  // namespace moebius
