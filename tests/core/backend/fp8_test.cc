// FP8 products (Rounding::kFp8) against double precision: the operands rounded by the definition, one tile
// after the other, then multiplied. An element may miss by a part of the sum of its terms' magnitudes
// (Tolerance::fp8_product), and by the rounding of the result.
#include "core/tensor/fp8.h"

#include <cmath>
#include <limits>
#include <ostream>
#include <tuple>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/reference.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

constexpr int64_t kTile = 128;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct TileShape {
  int64_t rows, cols;
};
constexpr TileShape kRowTile = {1, kTile}, kColumnTile = {kTile, 1}, kBlock = {kTile, kTile};

// Every element of x, rows flattened, as FP8 keeps it.
Doubles Rounded(const TensorView& x, TileShape tile) {
  Doubles out = Values(x);
  const int64_t rows = x.rows(), cols = x.cols();
  for (int64_t r0 = 0; r0 < rows; r0 += tile.rows) {
    for (int64_t c0 = 0; c0 < cols; c0 += tile.cols) {
      const auto each = [&](const auto& visit) {
        for (int64_t r = r0; r < std::min(r0 + tile.rows, rows); ++r) {
          for (int64_t c = c0; c < std::min(c0 + tile.cols, cols); ++c) visit(out[r * cols + c]);
        }
      };
      float amax = 0;
      each([&](double v) { amax = std::isnan(v) ? amax : std::max(amax, static_cast<float>(std::abs(v))); });
      const float scale = amax / 448 == 0 ? 1 : amax / 448;
      each([&](double& v) {
        v = static_cast<double>(F8E4M3ToFloat(F8E4M3FromFloat(static_cast<float>(v) / scale))) * scale;
      });
    }
  }
  return out;
}

Doubles Magnitudes(Doubles x) {
  for (double& v : x) v = std::abs(v);
  return x;
}

// A result and how far from it is right.
struct Expected {
  Doubles values, bounds;
};

Expected Product(const Doubles& a, const Doubles& b, int64_t m, int64_t n, int64_t k, DType out) {
  Expected e{ReferenceMatMul(a, b, m, n, k), ReferenceMatMul(Magnitudes(a), Magnitudes(b), m, n, k)};
  for (size_t i = 0; i < e.values.size(); ++i) {
    e.bounds[i] = ToleranceOf(DType::kF32).fp8_product * e.bounds[i] +
                  ToleranceOf(out).elementwise * std::abs(e.values[i]);
  }
  return e;
}

// Adds what is there already, or a bias.
void Add(Expected& e, size_t i, double value, DType out) {
  e.values[i] += value;
  e.bounds[i] += ToleranceOf(out).elementwise * std::abs(value);
}

void ExpectWithin(const Doubles& got, const Expected& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.values.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want.values[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << what << ", element " << i << ": " << got[i];
    } else {
      ASSERT_FALSE(!(std::abs(got[i] - want.values[i]) <= want.bounds[i]))
          << what << ", element " << i << ": " << got[i] << ", reference " << want.values[i] << ", bound "
          << want.bounds[i];
    }
  }
}

// Columns of a wider tensor, with magnitudes that change inside and between tiles, and zeros: whole tiles of
// a row, of a column and a block, where the matrix is large enough.
struct Operand {
  Operand(Backend& backend, DType dtype, int64_t rows, int64_t cols, const std::string& name,
          double scale = 1)
      : whole(RandomTensor(backend, dtype, {rows, cols + 13}, name, scale)),
        view(whole.view().Columns(5, cols)) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const bool zero = (r == 1 && c < kTile) || (c == 2 && r < kTile) ||
                          (r >= kTile && r < 2 * kTile && c >= kTile && c < 2 * kTile);
        const double size = std::ldexp(1.0, static_cast<int>(4 * ((r / 64 * 7 + c / 64 * 5 + r + c) % 3)));
        SetAt(view, r, c, zero ? 0 : ValueAt(view, r, c) * size);
      }
    }
  }
  Tensor whole;
  TensorView view;
};

struct Sizes {
  int64_t m, n, k;
};
std::ostream& operator<<(std::ostream& out, const Sizes& s) { return out << s.m << "x" << s.n << "x" << s.k; }

Doubles Transposed(const Doubles& x, const TensorView& view) {
  return ReferenceTransposed(x, view.rows(), view.cols());
}

class Fp8MatMulTest : public testing::TestWithParam<std::tuple<DType, Sizes>> {
 protected:
  DType act() const { return std::get<0>(GetParam()); }
  Sizes sizes() const { return std::get<1>(GetParam()); }
};

TEST_P(Fp8MatMulTest, ForwardMeetsDoublePrecisionOfTheRoundedOperands) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [m, n, k] = sizes();
  const Operand x(*backend, act(), m, k, "x"), w(*backend, act(), n, k, "w");
  const Tensor bias = RandomTensor(*backend, DType::kF32, {n}, "bias", 30);
  const Doubles a = Rounded(x.view, kRowTile), b = Transposed(Rounded(w.view, kBlock), w.view);
  for (const DType out : {DType::kF32, act()}) {
    Expected want = Product(a, b, m, n, k, out);
    for (const bool with_bias : {false, true}) {
      for (int64_t i = 0; with_bias && i < m * n; ++i) Add(want, i, ValueAt(bias, 0, i % n), out);
      const Operand y(*backend, out, m, n, "y");
      const Doubles around = Values(y.whole);
      backend->MatMul(*stream, {.a = x.view,
                                .b = w.view,
                                .c = y.view,
                                .transpose_b = Transpose::kYes,
                                .bias = with_bias ? bias.view() : TensorView(),
                                .rounding = Rounding::kFp8});
      ExpectWithin(Values(y.view), want, "y");
      for (int64_t i = 0; i < m * (n + 13); ++i) {  // the columns beside the view are not touched
        const int64_t column = i % (n + 13);
        if (column >= 5 && column < 5 + n) continue;
        ASSERT_EQ(ValueAt(y.whole, i / (n + 13), column), around[i]);
      }
    }
  }
}

TEST_P(Fp8MatMulTest, BackwardInputMeetsDoublePrecisionOfTheRoundedOperands) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [m, n, k] = sizes();
  const Operand dy(*backend, act(), m, k, "dy", 1e-6), w(*backend, act(), k, n, "w");
  for (const DType out : {DType::kF32, act()}) {
    const Operand dx(*backend, out, m, n, "dx");
    backend->MatMul(*stream, {.a = dy.view, .b = w.view, .c = dx.view, .rounding = Rounding::kFp8});
    ExpectWithin(Values(dx.view), Product(Rounded(dy.view, kRowTile), Rounded(w.view, kBlock), m, n, k, out),
                 "dx");
  }
}

TEST_P(Fp8MatMulTest, BackwardWeightAddsTheProductOfOperandsRoundedAlongTheRows) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [m, n, k] = sizes();
  const Operand dy(*backend, act(), k, m, "dy"), x(*backend, act(), k, n, "x"),
      dw(*backend, DType::kF32, m, n, "dw");
  Expected want = Product(Transposed(Rounded(dy.view, kColumnTile), dy.view), Rounded(x.view, kColumnTile), m,
                          n, k, DType::kF32);
  for (int64_t i = 0; i < m * n; ++i) Add(want, i, ValueAt(dw.view, i / n, i % n), DType::kF32);
  backend->MatMul(*stream, {.a = dy.view,
                            .b = x.view,
                            .c = dw.view,
                            .transpose_a = Transpose::kYes,
                            .accumulate = true,
                            .rounding = Rounding::kFp8});
  ExpectWithin(Values(dw.view), want, "dw");
}

TEST_P(Fp8MatMulTest, GivesTheSameBitsWithAnyNumberOfThreads) {
  const auto [m, n, k] = sizes();
  const auto reference = NewTestBackend();  // whose memory the tensors are
  const Operand a(*reference, act(), k, m, "a"), b(*reference, act(), k, n, "b");
  std::vector<Tensor> results;
  for (const auto& backend : NewTestBackends()) {
    const auto stream = backend->NewStream(StreamKind::kCompute);
    results.push_back(DirtyTensor(*reference, DType::kF32, {m, n}));
    backend->MatMul(*stream, {.a = a.view,
                              .b = b.view,
                              .c = results.back(),
                              .transpose_a = Transpose::kYes,
                              .rounding = Rounding::kFp8});
    EXPECT_TRUE(SameBits(results.front(), results.back())) << backend->num_threads() << " threads";
  }
}

// Few rows, edges inside a tile and just beyond one, whole tiles, and a sum of many tiles.
INSTANTIATE_TEST_SUITE_P(Types, Fp8MatMulTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::Values(Sizes{1, 1, 1}, Sizes{3, 70, 33},
                                                          Sizes{130, 257, 129}, Sizes{128, 256, 128},
                                                          Sizes{20, 40, 1000})));

class Fp8EdgeTest : public testing::TestWithParam<DType> {
 protected:
  // y = x · wᵀ in fp32.
  Doubles Forward(const TensorView& x, const TensorView& w) {
    const Tensor y = DirtyTensor(*backend_, DType::kF32, {x.rows(), w.rows()});
    backend_->MatMul(*stream_,
                     {.a = x, .b = w, .c = y, .transpose_b = Transpose::kYes, .rounding = Rounding::kFp8});
    return Values(y);
  }
  Expected Want(const TensorView& x, const TensorView& w) {
    return Product(Rounded(x, kRowTile), Transposed(Rounded(w, kBlock), w), x.rows(), w.rows(), x.cols(),
                   DType::kF32);
  }
  void Expect(const TensorView& x, const TensorView& w, const std::string& what) {
    ExpectWithin(Forward(x, w), Want(x, w), what);
  }

  const std::unique_ptr<Backend> backend_ = NewTestBackend();
  const std::unique_ptr<Stream> stream_ = backend_->NewStream(StreamKind::kCompute);
};

TEST_P(Fp8EdgeTest, ZeroOperandsGiveZeros) {
  const Operand x(*backend_, GetParam(), 20, 260, "x"), w(*backend_, GetParam(), 30, 260, "w");
  const Operand zeros(*backend_, GetParam(), 30, 260, "zeros", 0);
  for (const double y : Forward(x.view, zeros.view)) ASSERT_EQ(y, 0);
  for (const double y : Forward(zeros.view, w.view)) ASSERT_EQ(y, 0);
}

TEST_P(Fp8EdgeTest, HugeAndSmallOperandsKeepTheirDigits) {
  for (const auto& [of_x, of_w] : {std::pair{1e30, 1e-30}, {1e-30, 1.0}, {1e15, 1e15}, {1e-12, 1e-12}}) {
    const Operand x(*backend_, GetParam(), 40, 300, "x", of_x), w(*backend_, GetParam(), 140, 300, "w", of_w);
    Expect(x.view, w.view, "scales " + std::to_string(of_x) + " and " + std::to_string(of_w));
  }
}

TEST_P(Fp8EdgeTest, OneLargeValueLeavesItsTileCoarseAndTheOthersFine) {
  const Operand x(*backend_, GetParam(), 40, 300, "x"), w(*backend_, GetParam(), 140, 300, "w");
  SetAt(x.view, 7, 130, 3e4);
  SetAt(w.view, 9, 40, -1e5);
  Expect(x.view, w.view, "y");
}

TEST_P(Fp8EdgeTest, ValuesBelowAnyScaleBecomeZeros) {
  const Operand x(*backend_, GetParam(), 3, 130, "x"), w(*backend_, GetParam(), 20, 130, "w");
  for (int64_t c = 0; c < 130; ++c) SetAt(x.view, 0, c, 1e-43);
  const Doubles got = Forward(x.view, w.view);
  for (int64_t i = 0; i < 20; ++i) ASSERT_LE(std::abs(got[i]), 1e-36);
  ExpectWithin(Doubles(got.begin() + 20, got.end()), Want(x.view.Rows(1, 2), w.view), "other rows");
}

TEST_P(Fp8EdgeTest, NanReachesItsRowOrColumnAndNothingElse) {
  const Operand x(*backend_, GetParam(), 40, 300, "x"), w(*backend_, GetParam(), 140, 300, "w");
  SetAt(x.view, 7, 130, kNan);
  SetAt(w.view, 9, 40, kNan);
  const Doubles got = Forward(x.view, w.view);
  for (int64_t i = 0; i < 140; ++i) ASSERT_TRUE(std::isnan(got[7 * 140 + i])) << i;
  for (int64_t i = 0; i < 40; ++i) ASSERT_TRUE(std::isnan(got[i * 140 + 9])) << i;
  ExpectWithin(got, Want(x.view, w.view), "y");
}

TEST_P(Fp8EdgeTest, InfinityIsSeenInItsRowAndNowhereElse) {
  const Operand x(*backend_, GetParam(), 40, 300, "x"), w(*backend_, GetParam(), 140, 300, "w");
  const Expected want = Want(x.view, w.view);
  SetAt(x.view, 7, 130, kInfinity);
  Doubles got = Forward(x.view, w.view);
  for (int64_t i = 0; i < 140; ++i) {
    ASSERT_FALSE(std::isfinite(got[7 * 140 + i])) << i;
    got[7 * 140 + i] = want.values[7 * 140 + i];
  }
  ExpectWithin(got, want, "other rows");
}

INSTANTIATE_TEST_SUITE_P(Types, Fp8EdgeTest, testing::Values(DType::kF32, DType::kBF16));

class Fp8GroupedTest : public testing::TestWithParam<DType> {};

// Groups that are empty, of one row, below, at and beyond a tile; rows beyond the last stay.
const std::vector<int64_t> kOffsets = {0, 0, 1, 6, 6, 134, 425, 425};
constexpr int64_t kGroups = 7, kRows = 440, kIn = 200, kOut = 146;

TEST_P(Fp8GroupedTest, MeetsDoublePrecisionWithTilesThatStartWithEveryGroup) {
  const DType act = GetParam();
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  Tensor offsets(*backend, DType::kI64, {kGroups + 1});
  std::copy(kOffsets.begin(), kOffsets.end(), offsets.view().as<int64_t>());
  Tensor w(*backend, act, {kGroups, kOut, kIn});
  for (int64_t g = 0; g < kGroups; ++g) {
    const Operand wg(*backend, act, kOut, kIn, "w" + std::to_string(g), std::pow(10.0, g % 3));
    backend->Cast(*stream, wg.view, w.view().Index(g));
  }
  const Operand x(*backend, act, kRows, kIn, "x"), y(*backend, act, kRows, kOut, "y");
  const Operand new_y(*backend, act, kRows, kOut, "new y"), new_x(*backend, act, kRows, kIn, "new x");
  const Doubles y_before = Values(new_y.view), x_before = Values(new_x.view);
  const Tensor dw = RandomTensor(*backend, DType::kF32, {kGroups, kOut, kIn}, "dw");
  const Doubles dw_before = Values(dw);
  const auto run = [&](GroupedKind kind, TensorView x_view, TensorView w_view, TensorView y_view) {
    backend->GroupedMatMul(*stream, {.kind = kind,
                                     .x = x_view,
                                     .w = w_view,
                                     .y = y_view,
                                     .offsets = offsets,
                                     .rounding = Rounding::kFp8});
  };
  run(GroupedKind::kForward, x.view, w, new_y.view);
  run(GroupedKind::kBackwardInput, new_x.view, w, y.view);
  run(GroupedKind::kBackwardWeight, x.view, dw, y.view);
  for (int64_t g = 0; g < kGroups; ++g) {
    const int64_t begin = kOffsets[g], rows = kOffsets[g + 1] - begin;
    const std::string group = " of group " + std::to_string(g);
    const Doubles wg = Rounded(w.view().Index(g), kBlock);
    const TensorView xg = x.view.Rows(begin, rows), yg = y.view.Rows(begin, rows);
    ExpectWithin(Values(new_y.view.Rows(begin, rows)),
                 Product(Rounded(xg, kRowTile), ReferenceTransposed(wg, kOut, kIn), rows, kOut, kIn, act),
                 "y" + group);
    ExpectWithin(Values(new_x.view.Rows(begin, rows)),
                 Product(Rounded(yg, kRowTile), wg, rows, kIn, kOut, act), "x" + group);
    Expected want = Product(Transposed(Rounded(yg, kColumnTile), yg), Rounded(xg, kColumnTile), kOut, kIn,
                            rows, DType::kF32);
    for (int64_t i = 0; i < kOut * kIn; ++i) Add(want, i, dw_before[g * kOut * kIn + i], DType::kF32);
    ExpectWithin(Values(dw.view().Index(g)), want, "dw" + group);
  }
  const int64_t last = kOffsets.back();
  const Doubles y_after = Values(new_y.view), x_after = Values(new_x.view);
  EXPECT_TRUE(std::equal(y_after.begin() + last * kOut, y_after.end(), y_before.begin() + last * kOut));
  EXPECT_TRUE(std::equal(x_after.begin() + last * kIn, x_after.end(), x_before.begin() + last * kIn));
}

TEST_P(Fp8GroupedTest, GivesTheSameBitsWithAnyNumberOfThreads) {
  const auto reference = NewTestBackend();
  Tensor offsets(*reference, DType::kI64, {kGroups + 1});
  std::copy(kOffsets.begin(), kOffsets.end(), offsets.view().as<int64_t>());
  const Operand x(*reference, GetParam(), kRows, kIn, "x"), y(*reference, GetParam(), kRows, kOut, "y");
  std::vector<Tensor> results;
  for (const auto& backend : NewTestBackends()) {
    const auto stream = backend->NewStream(StreamKind::kCompute);
    results.push_back(RandomTensor(*reference, DType::kF32, {kGroups, kOut, kIn}, "dw"));
    backend->GroupedMatMul(*stream, {.kind = GroupedKind::kBackwardWeight,
                                     .x = x.view,
                                     .w = results.back(),
                                     .y = y.view,
                                     .offsets = offsets,
                                     .rounding = Rounding::kFp8});
    EXPECT_TRUE(SameBits(results.front(), results.back())) << backend->num_threads() << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Fp8GroupedTest, testing::Values(DType::kF32, DType::kBF16));

}  // namespace
}  // namespace moebius
