// What this folder's SIMD kernels share: fp32 vectors loaded from and stored to fp32 or bf16, whole or in
// part, and the exponential. Highway's per-target header: include it after highway.h inside a foreach_target
// file.
//
// Idiom (a lambda needs HWY_ATTR before its brace):
//   Sweep(n, [&](int64_t i, auto part) HWY_ATTR { Store(Mul(Load(x + i, part), scale), y + i, part); });

// NOLINTNEXTLINE: the guard toggles with the target
#if defined(MOEBIUS_CORE_BACKEND_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_BACKEND_CPU_SIMD_INL_H_
#undef MOEBIUS_CORE_BACKEND_CPU_SIMD_INL_H_
#else
#define MOEBIUS_CORE_BACKEND_CPU_SIMD_INL_H_
#endif

#include <cstdint>

#include "core/tensor/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using VF = hn::Vec<F32>;

HWY_INLINE int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(F32())); }
HWY_INLINE VF Set(float value) { return hn::Set(F32(), value); }

HWY_INLINE VF Load(const float* p) { return hn::LoadU(F32(), p); }
HWY_INLINE VF Load(const BF16* p) {
  const hn::RebindToUnsigned<F32> du;
  const hn::Rebind<uint16_t, F32> d16;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

// The value that a store as T keeps: for bf16 rounded to nearest even; NaN stays NaN: the bits of
// BF16::FromFloat.
template <typename T>
HWY_INLINE VF Rounded(VF v);
template <>
HWY_INLINE VF Rounded<float>(VF v) {
  return v;
}
template <>
HWY_INLINE VF Rounded<BF16>(VF v) {
  const hn::RebindToUnsigned<F32> du;
  const auto u = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto rounded = hn::Add(hn::Add(u, hn::Set(du, 0x7FFFu)), odd);
  const auto nan = hn::Or(u, hn::Set(du, 0x400000u));
  const auto bits = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), nan, rounded);
  return hn::BitCast(F32(), hn::And(bits, hn::Set(du, 0xFFFF0000u)));
}

// Stores values that T holds exactly, as Rounded<T> makes them.
HWY_INLINE void StoreExact(VF v, float* p) { hn::StoreU(v, F32(), p); }
HWY_INLINE void StoreExact(VF v, BF16* p) {
  const hn::RebindToUnsigned<F32> du;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<uint16_t, F32> d16;
  const auto high = hn::ShiftRight<16>(hn::BitCast(du, v));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, high)), d16, reinterpret_cast<uint16_t*>(p));
}

template <typename T>
HWY_INLINE void Store(VF v, T* p) {
  StoreExact(Rounded<T>(v), p);
}

// A whole vector, or its first n lanes (the others load as 0 and are not stored).
struct Whole {};
struct Part {
  int64_t n;
};
template <typename T>
HWY_INLINE VF Load(const T* p, Whole) {
  return Load(p);
}
template <typename T>
HWY_INLINE VF Load(const T* p, Part part) {
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(float)] = {};
  for (int64_t i = 0; i < part.n; ++i) lanes[i] = p[i];
  return Load(lanes);
}
template <typename T>
HWY_INLINE void Store(VF v, T* p, Whole) {
  Store(v, p);
}
template <typename T>
HWY_INLINE void Store(VF v, T* p, Part part) {
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(float)] = {};
  Store(v, lanes);
  for (int64_t i = 0; i < part.n; ++i) p[i] = lanes[i];
}

template <typename T>
HWY_INLINE void StoreExact(VF v, T* p, Whole) {
  StoreExact(v, p);
}
template <typename T>
HWY_INLINE void StoreExact(VF v, T* p, Part part) {
  Store(v, p, part);
}

// body(i, Whole) for every whole vector of n elements, then body(i, Part) for the rest.
template <typename Body>
HWY_INLINE void Sweep(int64_t n, const Body& body) {
  const int64_t lanes = Lanes();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, Whole());
  if (i < n) body(i, Part{n - i});
}

HWY_INLINE float Sum(VF v) { return hn::GetLane(hn::SumOfLanes(F32(), v)); }
HWY_INLINE float Max(VF v) { return hn::GetLane(hn::MaxOfLanes(F32(), v)); }

// e^x within 2 ulp (Cephes' expf: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]); 0 below -87.3, infinity
// above 88.3, NaN for NaN.
HWY_INLINE VF Exp(VF x) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  // By comparisons, which leave NaN alone; what Min and Max do with it differs from target to target.
  const VF below = hn::IfThenElse(hn::Gt(x, Set(89.0f)), Set(89.0f), x);
  const VF clamped = hn::IfThenElse(hn::Lt(below, Set(-87.3f)), Set(-87.3f), below);
  // n = round(x / ln 2) by adding 1.5 * 2^23: the low bits of the sum are then n.
  const VF shifted = hn::MulAdd(clamped, Set(1.44269504088896341f), Set(12582912.0f));
  const VF n = hn::Sub(shifted, Set(12582912.0f));
  VF r = hn::NegMulAdd(n, Set(0.693359375f), clamped);
  r = hn::NegMulAdd(n, Set(-2.12194440e-4f), r);
  VF p = hn::MulAdd(Set(1.9875691500e-4f), r, Set(1.3981999507e-3f));
  p = hn::MulAdd(p, r, Set(8.3334519073e-3f));
  p = hn::MulAdd(p, r, Set(4.1665795894e-2f));
  p = hn::MulAdd(p, r, Set(1.6666665459e-1f));
  p = hn::MulAdd(p, r, Set(5.0000001201e-1f));
  p = hn::MulAdd(p, hn::Mul(r, r), hn::Add(r, Set(1.0f)));
  const VF scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::BitCast(di, shifted), hn::Set(di, 127))));
  return hn::IfThenZeroElse(hn::Lt(x, Set(-87.3f)), hn::Mul(p, scale));
}

// 1 / (1 + e^-x).
HWY_INLINE VF Sigmoid(VF x) { return hn::Div(Set(1.0f), hn::Add(Set(1.0f), Exp(hn::Neg(x)))); }

}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // guard
