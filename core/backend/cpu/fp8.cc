#include "core/backend/cpu/fp8.h"

#include <algorithm>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/fp8.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "core/tensor/fp8-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

// |x| where it is larger; NaN is not.
HWY_INLINE VF Larger(VF amax, VF x) { return hn::Max(hn::Abs(x), amax); }

// amax / 448, or 1 where that is 0: all zeros, or all too small for a scale.
HWY_INLINE VF ScaleOf(VF amax) {
  const VF scale = hn::Div(amax, Set(kF8E4M3Max));
  return hn::IfThenElse(hn::Eq(scale, Set(0)), Set(1), scale);
}

HWY_INLINE VF Kept(VF x, VF scale) { return F8Values(F8Codes(hn::Div(x, scale)), Set(0x1p120f), scale); }

// One scale for all of x [rows, cols].
template <typename T>
void RoundTile(const T* x, int64_t stride, int64_t rows, int64_t cols, float* out, int64_t out_stride) {
  VF amax = Set(0);
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * stride;
    Sweep(cols, [&](int64_t c, auto part) HWY_ATTR { amax = Larger(amax, Load(row + c, part)); });
  }
  const VF scale = ScaleOf(Set(Max(amax)));
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * stride;
    float* to = out + r * out_stride;
    Sweep(cols,
          [&](int64_t c, auto part) HWY_ATTR { Store(Kept(Load(row + c, part), scale), to + c, part); });
  }
}

// One scale for each column.
template <typename T>
void RoundColumns(const T* x, int64_t stride, int64_t rows, int64_t cols, float* out, int64_t out_stride) {
  Sweep(cols, [&](int64_t c, auto part) HWY_ATTR {
    VF amax = Set(0);
    for (int64_t r = 0; r < rows; ++r) amax = Larger(amax, Load(x + r * stride + c, part));
    const VF scale = ScaleOf(amax);
    for (int64_t r = 0; r < rows; ++r) {
      Store(Kept(Load(x + r * stride + c, part), scale), out + r * out_stride + c, part);
    }
  });
}

template <typename T>
void RoundStripe(const T* x, int64_t stride, int64_t rows, int64_t cols, Fp8Tile tile, float* out) {
  if (tile == Fp8Tile::kColumn) return RoundColumns(x, stride, rows, cols, out, cols);
  const int64_t height = tile == Fp8Tile::kBlock ? rows : 1;
  for (int64_t r = 0; r < rows; r += height) {
    for (int64_t c = 0; c < cols; c += kFp8Tile) {
      RoundTile(x + r * stride + c, stride, height, std::min(kFp8Tile, cols - c), out + r * cols + c, cols);
    }
  }
}

void RoundAny(const TensorView& x, Fp8Tile tile, float* out) {
  if (x.dtype == DType::kF32) return RoundStripe(x.as<float>(), x.stride, x.rows(), x.cols(), tile, out);
  RoundStripe(x.as<BF16>(), x.stride, x.rows(), x.cols(), tile, out);
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

namespace {

HWY_EXPORT(RoundAny);

struct Stripe {
  TensorView x;
  Fp8Tile tile;
  float* out;
};

// Cuts x, whose first element starts a tile, and its copy at `out`.
void AddStripes(const TensorView& x, Fp8Tile tile, float* out, std::vector<Stripe>& stripes) {
  TensorView rows(x.data, x.dtype, {x.rows(), x.cols()});
  rows.stride = x.stride;
  for (int64_t r = 0; r < x.rows(); r += kFp8Tile) {
    stripes.push_back({rows.Rows(r, std::min(kFp8Tile, x.rows() - r)), tile, out + r * x.cols()});
  }
}

void RoundAll(ThreadPool& pool, const std::vector<Stripe>& stripes) {
  pool.Run(static_cast<int64_t>(stripes.size()),
           [&](int64_t i, int) { RoundStripeToFp8(stripes[i].x, stripes[i].tile, stripes[i].out); });
}

}  // namespace

void RoundStripeToFp8(const TensorView& x, Fp8Tile tile, float* out) {
  CHECK_LE(x.rows(), kFp8Tile) << x;
  HWY_DYNAMIC_DISPATCH(RoundAny)(x, tile, out);
}

void CpuBackend::MatMulFp8(Stream& stream, const MatMulArgs& args) {
  // Tiles lie along the terms of the sum.
  const bool weight = args.transpose_a == Transpose::kNo;
  const Fp8Tile a_tile = weight ? Fp8Tile::kRow : Fp8Tile::kColumn;
  const Fp8Tile b_tile = weight                                ? Fp8Tile::kBlock
                         : args.transpose_b == Transpose::kYes ? Fp8Tile::kRow
                                                               : Fp8Tile::kColumn;
  float* a = RoundedScratch(args.a.elements() + args.b.elements());
  float* b = a + args.a.elements();
  std::vector<Stripe> stripes;
  AddStripes(args.a, a_tile, a, stripes);
  AddStripes(args.b, b_tile, b, stripes);
  RoundAll(pool_, stripes);
  MatMulArgs plain = args;
  plain.a = TensorView(a, DType::kF32, args.a.shape);
  plain.b = TensorView(b, DType::kF32, args.b.shape);
  plain.rounding = Rounding::kNone;
  MatMul(stream, plain);
}

void CpuBackend::GroupedMatMulFp8(Stream& stream, const GroupedMatMulArgs& args) {
  const bool with_x = args.kind != GroupedKind::kBackwardInput, with_y = args.kind != GroupedKind::kForward;
  const bool with_w = args.kind != GroupedKind::kBackwardWeight;
  // The memory of a result that is not rounded is not used.
  float* x = RoundedScratch((with_x ? args.x.elements() : 0) + (with_y ? args.y.elements() : 0) +
                            (with_w ? args.w.elements() : 0));
  float* y = x + (with_x ? args.x.elements() : 0);
  float* w = y + (with_y ? args.y.elements() : 0);
  const Fp8Tile tile = with_w ? Fp8Tile::kRow : Fp8Tile::kColumn;
  const int64_t* offsets = args.offsets.as<int64_t>();
  std::vector<Stripe> stripes;
  for (int64_t g = 0; g < args.w.shape[0]; ++g) {
    const int64_t begin = offsets[g], rows = offsets[g + 1] - begin;
    if (rows == 0) continue;
    if (with_x) AddStripes(args.x.Rows(begin, rows), tile, x + begin * args.x.cols(), stripes);
    if (with_y) AddStripes(args.y.Rows(begin, rows), tile, y + begin * args.y.cols(), stripes);
    const TensorView wg = args.w.Index(g);
    if (with_w) AddStripes(wg, Fp8Tile::kBlock, w + g * wg.elements(), stripes);
  }
  RoundAll(pool_, stripes);
  GroupedMatMulArgs plain = args;
  if (with_x) plain.x = TensorView(x, DType::kF32, args.x.shape);
  if (with_y) plain.y = TensorView(y, DType::kF32, args.y.shape);
  if (with_w) plain.w = TensorView(w, DType::kF32, args.w.shape);
  plain.rounding = Rounding::kNone;
  GroupedMatMul(stream, plain);
}

}  // namespace moebius
#endif  // HWY_ONCE
