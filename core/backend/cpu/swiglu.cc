#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/pieces.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/swiglu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

template <typename T>
HWY_INLINE T* Row(const TensorView& view, int64_t row) {
  return static_cast<T*>(view.data) + row * view.stride;
}

template <typename T>
void ForwardRows(const SwiGluArgs& args, int64_t begin, int64_t end) {
  const int64_t width = args.h.cols();
  const float* weights = static_cast<const float*>(args.row_weights.data);
  for (int64_t r = begin; r < end; ++r) {
    const T *gate = Row<T>(args.gate_up, r), *up = gate + width;
    T* h = Row<T>(args.h, r);
    const VF weight = Set(weights != nullptr ? weights[r] : 1.0f);
    Sweep(width, [&](int64_t i, auto part) HWY_ATTR {
      const VF g = Load(gate + i, part);
      Store(hn::Mul(hn::Mul(hn::Mul(g, Sigmoid(g)), Load(up + i, part)), weight), h + i, part);
    });
  }
}

// With a = silu(gate), a' = sigmoid * (1 + gate * (1 - sigmoid)):
//   dgate = dh * weight * up * a'; dup = dh * weight * a; dweight = sum of dh * a * up.
template <typename T>
void BackwardRows(const SwiGluBackwardArgs& args, int64_t begin, int64_t end) {
  const int64_t width = args.dh.cols();
  const float* weights = static_cast<const float*>(args.row_weights.data);
  float* d_weights = static_cast<float*>(args.d_row_weights.data);
  for (int64_t r = begin; r < end; ++r) {
    const T *gate = Row<T>(args.gate_up, r), *up = gate + width, *dh = Row<T>(args.dh, r);
    T *dgate = Row<T>(args.d_gate_up, r), *dup = dgate + width;
    T* h = args.h ? Row<T>(args.h, r) : nullptr;
    const VF weight = Set(weights != nullptr ? weights[r] : 1.0f), one = Set(1.0f);
    VF d_weight = Set(0);
    Sweep(width, [&](int64_t i, auto part) HWY_ATTR {
      const VF g = Load(gate + i, part), u = Load(up + i, part), d = Load(dh + i, part);
      const VF sigmoid = Sigmoid(g), silu = hn::Mul(g, sigmoid), product = hn::Mul(silu, u);
      const VF slope = hn::Mul(sigmoid, hn::MulAdd(g, hn::Sub(one, sigmoid), one));
      const VF dw = hn::Mul(d, weight);
      d_weight = hn::MulAdd(d, product, d_weight);
      if (h != nullptr) Store(hn::Mul(product, weight), h + i, part);
      Store(hn::Mul(hn::Mul(dw, u), slope), dgate + i, part);
      Store(hn::Mul(dw, silu), dup + i, part);
    });
    if (d_weights != nullptr) d_weights[r] = Sum(d_weight);
  }
}

void Forward(const SwiGluArgs& args, int64_t begin, int64_t end) {
  args.h.dtype == DType::kF32 ? ForwardRows<float>(args, begin, end) : ForwardRows<BF16>(args, begin, end);
}
void Backward(const SwiGluBackwardArgs& args, int64_t begin, int64_t end) {
  args.dh.dtype == DType::kF32 ? BackwardRows<float>(args, begin, end) : BackwardRows<BF16>(args, begin, end);
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(Forward);
HWY_EXPORT(Backward);

void CpuBackend::SwiGlu(Stream&, const SwiGluArgs& args) {
  ForRowRanges(pool_, args.h.rows(), args.h.cols(), [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(Forward)(args, begin, end);
  });
}

void CpuBackend::SwiGluBackward(Stream&, const SwiGluBackwardArgs& args) {
  ForRowRanges(pool_, args.dh.rows(), args.dh.cols(), [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(Backward)(args, begin, end);
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
