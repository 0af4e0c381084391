// Products with few rows against double precision, in both orders of the weights.
#include "core/backend/cpu/matvec.h"

#include <algorithm>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/targets.h"

namespace moebius {
namespace {

// The product of views: w is [n, k] or [k, n] by `order`.
MatVecArgs Product(const TensorView& x, const TensorView& w, WeightOrder order, const TensorView& y) {
  return {.m = x.rows(),
          .n = y.cols(),
          .k = x.cols(),
          .x = x.data,
          .x_dtype = x.dtype,
          .ldx = x.stride,
          .w = w.data,
          .w_dtype = w.dtype,
          .ldw = w.stride,
          .order = order,
          .y = y.data,
          .y_dtype = y.dtype,
          .ldy = y.stride};
}

std::vector<double> Reference(const TensorView& x, const TensorView& w, WeightOrder order, int64_t n,
                              const std::vector<double>& start) {
  std::vector<double> out = start;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < n; ++c) {
      for (int64_t k = 0; k < x.cols(); ++k) {
        out[r * n + c] +=
            ValueAt(x, r, k) * (order == WeightOrder::kOutIn ? ValueAt(w, c, k) : ValueAt(w, k, c));
      }
    }
  }
  return out;
}

class MatVecTest : public testing::TestWithParam<WeightOrder> {};

TEST_P(MatVecTest, MeetsDoublePrecisionForAnyShapeAndTypes) {
  const auto backend = MakeCpuBackend({.threads = 1});
  ThreadPool pool(2);
  const DType types[] = {DType::kF32, DType::kBF16};
  for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 19, 40}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {5, 7}, {130, 64}, {700, 33}}) {
      for (const DType x_type : types) {
        for (const DType w_type : types) {
          const Tensor x = RandomTensor(*backend, x_type, {m, k + 3}, "x");
          const bool out_in = GetParam() == WeightOrder::kOutIn;
          const Tensor w = RandomTensor(*backend, w_type, {out_in ? n : k, (out_in ? k : n) + 2}, "w");
          const TensorView wv = w.view().Columns(2, out_in ? k : n), xv = x.view().Columns(3, k);
          const Tensor y = DirtyTensor(*backend, DType::kF32, {m, n});
          const std::vector<double> want = Reference(xv, wv, GetParam(), n, std::vector<double>(m * n, 0));
          MatVec(pool, Product(xv, wv, GetParam(), y));
          ExpectNear(Values(y), want, 2e-6, "y");
          const Tensor rounded = DirtyTensor(*backend, DType::kBF16, {m, n});
          MatVec(pool, Product(xv, wv, GetParam(), rounded));
          ExpectNear(Values(rounded), want, 4e-3, "bf16 y");
        }
      }
    }
  }
}

TEST(MatVecDotsTest, BothWaysOfMultiplyingBf16MeetDoublePrecision) {
  const BF16Anywhere bf16;
  const auto backend = MakeCpuBackend({.threads = 1});
  for (const int64_t m : {1, 2, 3, 8}) {
    for (const int64_t k : {1, 15, 16, 31, 200}) {
      const Tensor x = RandomTensor(*backend, DType::kBF16, {m, k}, "x"),
                   w = RandomTensor(*backend, DType::kBF16, {37, k}, "w");
      const std::vector<double> want =
          Reference(x, w, WeightOrder::kOutIn, 37, std::vector<double>(m * 37, 0));
      for (const BF16Dots dots : {BF16Dots::kWidened, BF16Dots::kNative}) {
        const Tensor y = DirtyTensor(*backend, DType::kF32, {m, 37});
        MatVecColumns(Product(x, w, WeightOrder::kOutIn, y), dots, 0, 37);
        ExpectNear(Values(y), want, 2e-6, "y");
      }
    }
  }
}

TEST_P(MatVecTest, AddsABiasAndAccumulates) {
  const auto backend = MakeCpuBackend({.threads = 1});
  ThreadPool pool(2);
  const bool out_in = GetParam() == WeightOrder::kOutIn;
  const Tensor x = RandomTensor(*backend, DType::kF32, {3, 20}, "x");
  const Tensor w = RandomTensor(*backend, DType::kF32, {out_in ? 50 : 20, out_in ? 20 : 50}, "w");
  const Tensor bias = RandomTensor(*backend, DType::kF32, {50}, "bias");
  const Tensor y = RandomTensor(*backend, DType::kF32, {3, 50}, "y");
  std::vector<double> start = Values(y);
  for (int64_t i = 0; i < 150; ++i) start[i] += ValueAt(bias, 0, i % 50);
  MatVecArgs args = Product(x, w, GetParam(), y);
  args.bias = bias.view().as<float>();
  args.accumulate = true;
  MatVec(pool, args);
  ExpectNear(Values(y), Reference(x, w, GetParam(), 50, start), 2e-6, "y");
}

TEST_P(MatVecTest, ARowDependsOnNeitherItsBatchNorTheThreads) {
  const auto backend = MakeCpuBackend({.threads = 1});
  const bool out_in = GetParam() == WeightOrder::kOutIn;
  const Tensor x = RandomTensor(*backend, DType::kBF16, {37, 500}, "x");
  const Tensor w = RandomTensor(*backend, DType::kBF16, {out_in ? 900 : 500, out_in ? 500 : 900}, "w");
  const Tensor want = DirtyTensor(*backend, DType::kF32, {37, 900});
  ThreadPool one(1);
  MatVec(one, Product(x, w, GetParam(), want));
  for (const int threads : {2, 3}) {
    ThreadPool pool(threads);
    const Tensor y = DirtyTensor(*backend, DType::kF32, {37, 900});
    MatVec(pool, Product(x, w, GetParam(), y));
    EXPECT_TRUE(SameBits(y, want));
    for (int64_t r = 0; r < 37; ++r) {
      const Tensor row = DirtyTensor(*backend, DType::kF32, {1, 900});
      MatVec(pool, Product(x.view().Rows(r, 1), w, GetParam(), row));
      EXPECT_TRUE(SameBits(row, want.view().Rows(r, 1))) << "row " << r;
    }
  }
}

TEST(MatVecWideTest, WidenedRowsHaveTheSameBits) {
  const auto backend = MakeCpuBackend({.threads = 1});
  for (const int64_t m : {1, 2, 3, 7, 10, 21, 64}) {
    for (const int64_t k : {1, 16, 31, 64, 301}) {
      const int64_t n = 50, stride = EvenOddSize(k);
      const Tensor x = RandomTensor(*backend, DType::kBF16, {m, k}, "x"),
                   w = RandomTensor(*backend, DType::kBF16, {n, k}, "w"),
                   wide = DirtyTensor(*backend, DType::kF32, {m, stride});
      for (int64_t r = 0; r < m; ++r) {
        float* row = wide.view().as<float>() + r * stride;
        WidenEvenOdd(x.view().as<BF16>() + r * k, k, row);
        std::vector<float> sorted(row, row + stride), want(stride, 0);
        for (int64_t i = 0; i < k; ++i) want[i] = static_cast<float>(ValueAt(x, r, i));
        std::sort(sorted.begin(), sorted.end()), std::sort(want.begin(), want.end());
        ASSERT_EQ(sorted, want);
      }
      const Tensor y = DirtyTensor(*backend, DType::kF32, {m, n}),
                   want = DirtyTensor(*backend, DType::kF32, {m, n});
      MatVecColumns(Product(x, w, WeightOrder::kOutIn, want), BF16Dots::kWidened, 0, n);
      MatVecArgs args = Product(wide, w, WeightOrder::kOutIn, y);
      args.k = k, args.even_odd = true;
      MatVecColumns(args, 0, n);
      EXPECT_TRUE(SameBits(y, want)) << m << " rows of " << k;
    }
  }
}

TEST(MatVecWideTest, WidenKeepsValuesInPlace) {
  const auto backend = MakeCpuBackend({.threads = 1});
  const Tensor x = RandomTensor(*backend, DType::kBF16, {1, 301}, "x"),
               wide = DirtyTensor(*backend, DType::kF32, {1, 301});
  Widen(x.view().as<BF16>(), 301, wide.view().as<float>());
  for (int64_t i = 0; i < 301; ++i) ASSERT_EQ(ValueAt(wide, 0, i), ValueAt(x, 0, i));
}

INSTANTIATE_TEST_SUITE_P(Orders, MatVecTest, testing::Values(WeightOrder::kOutIn, WeightOrder::kInOut),
                         [](const auto& info) {
                           return std::string(info.param == WeightOrder::kOutIn ? "OutIn" : "InOut");
                         });

}  // namespace
}  // namespace moebius
