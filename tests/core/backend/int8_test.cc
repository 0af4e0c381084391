// Products in 8 bits against double precision of the same rounded operands.
#include "core/backend/cpu/int8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/backend/ops.h"
#include "tests/core/backend/arrays.h"

namespace moebius {
namespace {

// A row as products in 8 bits see it (kernel_args.h, Int8Weight).
std::vector<double> RoundedRow(const TensorView& x, int64_t row) {
  std::vector<double> out(x.cols());
  for (int64_t begin = 0; begin < x.cols(); begin += kInt8Stretch) {
    const int64_t end = std::min(begin + kInt8Stretch, x.cols());
    float largest = 0;
    for (int64_t k = begin; k < end; ++k) {
      largest = std::max(largest, std::abs(static_cast<float>(ValueAt(x, row, k))));
    }
    for (int64_t k = begin; k < end && largest > 0; ++k) {
      const float q = std::nearbyint(static_cast<float>(ValueAt(x, row, k)) * (127 / largest));
      out[k] = static_cast<double>(q) * (largest / 127);
    }
  }
  return out;
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

struct Host {
  explicit Host(int threads) : backend(MakeCpuBackend({.threads = threads})) {}

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  Arena scratch{*backend};
  Context context{*backend, *stream, scratch};
};

// y of weights w [groups, out, in], through the seam.
void Multiply(Host& host, const TensorView& x, const TensorView& w, const TensorView& y,
              const TensorView& offsets = {}, const TensorView& bias = {}) {
  const Tensor packed(*host.backend, DType::kU8, {host.backend->Int8Bytes(w.shape)});
  PackInt8(host.context, {.w = w, .to = {w.shape, packed}});
  Int8MatMul(host.context, {.x = x, .w = {w.shape, packed}, .y = y, .offsets = offsets, .bias = bias});
}

TEST(Int8Test, MeetsDoublePrecisionOfRoundedOperandsForAnyShapeAndTypes) {
  Host host(2);
  const DType types[] = {DType::kF32, DType::kBF16};
  for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 300}) {
    for (const auto& [n, k] :
         {std::pair<int64_t, int64_t>{1, 1}, {5, 7}, {16, 128}, {100, 130}, {47, 300}, {250, 65}}) {
      for (const DType type : types) {
        const Tensor wide = RandomTensor(*host.backend, type, {m, k + 3}, "x");
        const Tensor w = RandomTensor(*host.backend, type, {1, n, k}, "w");
        const Tensor bias = RandomTensor(*host.backend, DType::kF32, {n}, "bias");
        const TensorView x = wide.view().Columns(3, k);
        std::vector<double> want(m * n);
        for (int64_t c = 0; c < n; ++c) {
          const std::vector<double> column = RoundedRow(w.view().Index(0), c);
          for (int64_t r = 0; r < m; ++r) want[r * n + c] = Dot(RoundedRow(x, r), column);
        }
        const Tensor y = DirtyTensor(*host.backend, DType::kF32, {m, n});
        Multiply(host, x, w, y);
        ExpectNear(Values(y), want, 1e-6, "y");
        for (int64_t i = 0; i < m * n; ++i) want[i] += ValueAt(bias, 0, i % n);
        const Tensor act = DirtyTensor(*host.backend, type, {m, n});
        Multiply(host, x, w, act, {}, bias);
        ExpectNear(Values(act), want, type == DType::kF32 ? 1e-6 : 4e-3, "y + bias");
      }
    }
  }
}

TEST(Int8Test, StaysNearTheProductThatIsNotRounded) {
  Host host(2);
  const int64_t m = 20, n = 90, k = 640;
  const Tensor x = RandomTensor(*host.backend, DType::kF32, {m, k}, "x");
  const Tensor w = RandomTensor(*host.backend, DType::kF32, {1, n, k}, "w");
  // A term that outweighs all others costs the terms beside it their precision, not those of other stretches.
  for (int64_t r = 0; r < m; ++r) x.view().as<float>()[r * k + 5] = 300;
  for (int64_t c = 0; c < n; ++c) w.view().as<float>()[c * k + 5] = 0;
  const Tensor y = DirtyTensor(*host.backend, DType::kF32, {m, n});
  Multiply(host, x, w, y);
  // The stretch with that term is compared as it is rounded.
  const TensorView x_first = x.view().Columns(0, kInt8Stretch),
                   w_first = w.view().Index(0).Columns(0, kInt8Stretch);
  double error = 0, size = 0;
  for (int64_t c = 0; c < n; ++c) {
    const std::vector<double> column = RoundedRow(w_first, c);
    for (int64_t r = 0; r < m; ++r) {
      double want = 0;
      for (int64_t i = kInt8Stretch; i < k; ++i) want += ValueAt(x, r, i) * ValueAt(w.view().Index(0), c, i);
      const double first = Dot(RoundedRow(x_first, r), column);
      error += std::pow(ValueAt(y, r, c) - first - want, 2);
      size += want * want;
    }
  }
  EXPECT_LT(std::sqrt(error / size), 0.01);
}

TEST(Int8Test, GroupsMultiplyTheirOwnRows) {
  Host host(2);
  const int64_t n = 70, k = 200;
  const std::vector<int64_t> starts = {0, 3, 3, 4, 290, 300};
  const int64_t groups = std::ssize(starts) - 1;
  const Tensor x = RandomTensor(*host.backend, DType::kBF16, {300, k}, "x");
  const Tensor w = RandomTensor(*host.backend, DType::kBF16, {groups, n, k}, "w");
  const Tensor offsets(*host.backend, DType::kI64, {groups + 1});
  std::copy(starts.begin(), starts.end(), offsets.view().as<int64_t>());
  const Tensor y = DirtyTensor(*host.backend, DType::kBF16, {300, n});
  Multiply(host, x, w, y, offsets);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t r = starts[g]; r < starts[g + 1]; ++r) {
      const Tensor alone = DirtyTensor(*host.backend, DType::kBF16, {1, n});
      Multiply(host, x.view().Rows(r, 1), w.view().Index(g).Reshape({1, n, k}), alone);
      ASSERT_TRUE(SameBits(y.view().Rows(r, 1), alone)) << "row " << r << " of group " << g;
    }
  }
}

TEST(Int8Test, ResultsDependOnNeitherThreadsNorInstructions) {
  Host one(1), three(3);
  const int64_t m = 37, n = 300, k = 500;
  const Tensor x = RandomTensor(*one.backend, DType::kBF16, {m, k}, "x");
  const Tensor w = RandomTensor(*one.backend, DType::kBF16, {1, n, k}, "w");
  const Tensor want = DirtyTensor(*one.backend, DType::kF32, {m, n});
  Multiply(one, x, w, want);
  const Tensor y = DirtyTensor(*one.backend, DType::kF32, {m, n});
  Multiply(three, x, w, y);
  EXPECT_TRUE(SameBits(y, want));

  const Tensor packed(*one.backend, DType::kU8, {one.backend->Int8Bytes({1, n, k})});
  PackInt8(one.context, {.w = w, .to = {{1, n, k}, packed}});
  const Int8Dots dots = Int8Dots::kWidened;
  const Tensor room(*one.backend, DType::kU8, {Int8Rows::Bytes(m, k, dots)});
  const Int8Rows rows = Int8Rows::At(room.view().data, m, k, dots);
  RoundInt8Rows(x, 0, m, dots, rows);
  const Tensor widened = DirtyTensor(*one.backend, DType::kF32, {m, n});
  Int8Compute({.x = &rows,
               .w = packed.view().as<uint8_t>(),
               .y = widened,
               .in = k,
               .row = 0,
               .rows = m,
               .begin = 0,
               .end = Int8Panels(n)},
              dots);
  EXPECT_TRUE(SameBits(widened, want));
}

TEST(Int8Test, ZerosStayZeroAndWhatIsNotFiniteIsNotHidden) {
  Host host(1);
  const int64_t n = 20, k = 150;
  const Tensor x = RandomTensor(*host.backend, DType::kF32, {4, k}, "x");
  const Tensor w = RandomTensor(*host.backend, DType::kF32, {1, n, k}, "w");
  std::fill_n(x.view().as<float>(), k, 0.0f);
  x.view().as<float>()[k + 140] = std::numeric_limits<float>::infinity();
  x.view().as<float>()[2 * k + 3] = std::numeric_limits<float>::quiet_NaN();
  std::fill_n(w.view().as<float>() + 7 * k, k, 0.0f);
  const Tensor y = DirtyTensor(*host.backend, DType::kF32, {4, n});
  Multiply(host, x, w, y);
  for (int64_t c = 0; c < n; ++c) {
    EXPECT_EQ(ValueAt(y, 0, c), 0) << c;
    EXPECT_TRUE(std::isnan(ValueAt(y, 1, c))) << c;
    EXPECT_TRUE(std::isnan(ValueAt(y, 2, c))) << c;
    EXPECT_TRUE(std::isfinite(ValueAt(y, 3, c))) << c;
  }
  EXPECT_EQ(ValueAt(y, 3, 7), 0);
}

}  // namespace
}  // namespace moebius
