#include <algorithm>
#include <cstring>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/pieces.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/elementwise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

template <typename X, typename Y>
void CastTo(const X* x, Y* y, int64_t n) {
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR { Store(Load(x + i, part), y + i, part); });
}

template <typename X, typename Y>
void AccumulateTo(const X* x, Y* y, int64_t n, float alpha) {
  const VF scale = Set(alpha);
  Sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { Store(hn::MulAdd(scale, Load(x + i, part), Load(y + i, part)), y + i, part); });
}

// Calls f(x, y) with pointers of the types that the dtypes stand for.
template <typename F>
HWY_INLINE void WithTypes(const void* x, DType x_dtype, void* y, DType y_dtype, const F& f) {
  const auto with_y = [&](const auto* typed_x) {
    y_dtype == DType::kF32 ? f(typed_x, static_cast<float*>(y)) : f(typed_x, static_cast<BF16*>(y));
  };
  x_dtype == DType::kF32 ? with_y(static_cast<const float*>(x)) : with_y(static_cast<const BF16*>(x));
}

void CastPiece(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
  WithTypes(from, from_dtype, to, to_dtype, [&](const auto* x, auto* y) { CastTo(x, y, n); });
}

void AccumulatePiece(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n, float alpha) {
  WithTypes(from, from_dtype, to, to_dtype, [&](const auto* x, auto* y) { AccumulateTo(x, y, n, alpha); });
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(CastPiece);
HWY_EXPORT(AccumulatePiece);

namespace {

char* At(const TensorView& view, int64_t row, int64_t column) {
  return static_cast<char*>(view.data) + (row * view.stride + column) * SizeOf(view.dtype);
}

// body(row, column, count) over pieces of rows that cover the views; contiguous views are one long row.
template <typename Body>
void ForPieces(ThreadPool& pool, const TensorView& x, bool flat, const Body& body) {
  if (flat) {
    ForRanges(pool, x.elements(), [&](int64_t begin, int64_t end, int) { body(0, begin, end - begin); });
    return;
  }
  ForRowRanges(pool, x.rows(), x.cols(), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row, 0, x.cols());
  });
}

}  // namespace

void CpuBackend::CopyToDevice(Stream&, const void* host, TensorView to) {
  const int64_t row_bytes = to.cols() * SizeOf(to.dtype);
  if (to.elements() == 0) return;
  if (to.contiguous()) {
    std::memcpy(to.data, host, to.bytes());
    return;
  }
  for (int64_t r = 0; r < to.rows(); ++r) {
    std::memcpy(At(to, r, 0), static_cast<const char*>(host) + r * row_bytes, row_bytes);
  }
}

void CpuBackend::CopyToHost(Stream&, TensorView from, void* host) {
  const int64_t row_bytes = from.cols() * SizeOf(from.dtype);
  if (from.elements() == 0) return;
  if (from.contiguous()) {
    std::memcpy(host, from.data, from.bytes());
    return;
  }
  for (int64_t r = 0; r < from.rows(); ++r) {
    std::memcpy(static_cast<char*>(host) + r * row_bytes, At(from, r, 0), row_bytes);
  }
}

void CpuBackend::Zero(Stream&, TensorView x) {
  ForPieces(pool_, x, x.contiguous(), [&](int64_t row, int64_t column, int64_t count) {
    std::memset(At(x, row, column), 0, count * SizeOf(x.dtype));
  });
}

void CpuBackend::Fill(Stream&, TensorView x, float value) {
  ForPieces(pool_, x, x.contiguous(), [&](int64_t row, int64_t column, int64_t count) {
    if (x.dtype == DType::kF32) {
      std::fill_n(reinterpret_cast<float*>(At(x, row, column)), count, value);
    } else {
      std::fill_n(reinterpret_cast<BF16*>(At(x, row, column)), count, BF16::FromFloat(value));
    }
  });
}

void CpuBackend::Cast(Stream&, TensorView from, TensorView to) {
  ForPieces(pool_, from, from.contiguous() && to.contiguous(),
            [&](int64_t row, int64_t column, int64_t count) {
              HWY_DYNAMIC_DISPATCH(CastPiece)
              (At(from, row, column), from.dtype, At(to, row, column), to.dtype, count);
            });
}

void CpuBackend::Accumulate(Stream&, const AccumulateArgs& args) {
  const TensorView &x = args.x, &y = args.y;
  ForPieces(pool_, x, x.contiguous() && y.contiguous(), [&](int64_t row, int64_t column, int64_t count) {
    HWY_DYNAMIC_DISPATCH(AccumulatePiece)
    (At(x, row, column), x.dtype, At(y, row, column), y.dtype, count, args.alpha);
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
