#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/pieces.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/rope.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

HWY_INLINE float ToFloat(float x) { return x; }
HWY_INLINE float ToFloat(BF16 x) { return x.ToFloat(); }
HWY_INLINE void Put(float x, float* to) { *to = x; }
HWY_INLINE void Put(float x, BF16* to) { *to = BF16::FromFloat(x); }

// a, b = a cos - b sin, a sin + b cos; `sign` turns the angle.
HWY_INLINE void Turn(VF c, VF s, VF& a, VF& b) {
  const VF turned = hn::NegMulAdd(b, s, hn::Mul(a, c));
  b = hn::MulAdd(a, s, hn::Mul(b, c));
  a = turned;
}

template <typename T>
void TurnHalves(T* x, int64_t half, const float* cos, const float* sin, float sign) {
  Sweep(half, [&](int64_t i, auto part) HWY_ATTR {
    VF a = Load(x + i, part), b = Load(x + half + i, part);
    Turn(Load(cos + i, part), hn::Mul(Load(sin + i, part), Set(sign)), a, b);
    Store(a, x + i, part);
    Store(b, x + half + i, part);
  });
}

#if HWY_TARGET != HWY_SCALAR
HWY_INLINE void LoadPairs(const float* x, VF& even, VF& odd) { hn::LoadInterleaved2(F32(), x, even, odd); }
HWY_INLINE void StorePairs(VF even, VF odd, float* x) { hn::StoreInterleaved2(even, odd, F32(), x); }
// A pair of bf16 is one 32-bit lane: the even element in its low half.
HWY_INLINE void LoadPairs(const BF16* x, VF& even, VF& odd) {
  const hn::RebindToUnsigned<F32> du;
  const auto u = hn::LoadU(du, reinterpret_cast<const uint32_t*>(x));
  even = hn::BitCast(F32(), hn::ShiftLeft<16>(u));
  odd = hn::BitCast(F32(), hn::And(u, hn::Set(du, 0xFFFF0000u)));
}
HWY_INLINE void StorePairs(VF even, VF odd, BF16* x) {
  const hn::RebindToUnsigned<F32> du;
  const auto low = hn::ShiftRight<16>(hn::BitCast(du, Rounded<BF16>(even)));
  hn::StoreU(hn::Or(low, hn::BitCast(du, Rounded<BF16>(odd))), du, reinterpret_cast<uint32_t*>(x));
}
#endif

template <typename T>
void TurnPairs(T* x, int64_t half, const float* cos, const float* sin, float sign) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; i + Lanes() <= half; i += Lanes()) {
    VF a, b;
    LoadPairs(x + 2 * i, a, b);
    Turn(Load(cos + i), hn::Mul(Load(sin + i), Set(sign)), a, b);
    StorePairs(a, b, x + 2 * i);
  }
#endif
  for (; i < half; ++i) {
    const float a = ToFloat(x[2 * i]), b = ToFloat(x[2 * i + 1]), c = cos[i], s = sin[i] * sign;
    Put(a * c - b * s, x + 2 * i);
    Put(a * s + b * c, x + 2 * i + 1);
  }
}

template <typename T>
void RotateTokens(const RopeArgs& args, int64_t begin, int64_t end) {
  const int64_t heads = args.x.shape[1], half = args.x.cols() / 2;
  const int32_t* positions = static_cast<const int32_t*>(args.positions.data);
  const float sign = args.inverse ? -1.0f : 1.0f;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t position = positions[t];
    CHECK(position >= 0 && position < args.cos.rows()) << "position " << position << " of token " << t;
    const float* cos = static_cast<const float*>(args.cos.data) + position * args.cos.stride;
    const float* sin = static_cast<const float*>(args.sin.data) + position * args.sin.stride;
    T* x = static_cast<T*>(args.x.data) + t * heads * args.x.stride;
    for (int64_t h = 0; h < heads; ++h, x += args.x.stride) {
      args.style == RopeStyle::kInterleaved ? TurnPairs(x, half, cos, sin, sign)
                                            : TurnHalves(x, half, cos, sin, sign);
    }
  }
}

void Rotate(const RopeArgs& args, int64_t begin, int64_t end) {
  args.x.dtype == DType::kF32 ? RotateTokens<float>(args, begin, end) : RotateTokens<BF16>(args, begin, end);
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(Rotate);

void CpuBackend::Rope(Stream&, const RopeArgs& args) {
  ForRowRanges(
      pool_, args.x.shape[0], args.x.shape[1] * args.x.shape[2],
      [&](int64_t begin, int64_t end, int) { return HWY_DYNAMIC_DISPATCH(Rotate)(args, begin, end); });
}

}  // namespace moebius
#endif  // HWY_ONCE
