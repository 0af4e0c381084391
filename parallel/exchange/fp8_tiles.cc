#include "parallel/exchange/fp8_tiles.h"

#include <algorithm>
#include <bit>

#include "core/tensor/fp8.h"
#include "parallel/exchange/row_values.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "parallel/exchange/fp8_tiles.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/tensor/fp8-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using U32 = hn::RebindToUnsigned<F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using U8 = hn::Rebind<uint8_t, F32>;
using VF = hn::Vec<F32>;

HWY_INLINE VF Load(const float* x) { return hn::LoadU(F32(), x); }
HWY_INLINE VF Load(const BF16* x) {
  const auto bits = hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(x));
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), bits)));
}
HWY_INLINE void Store(VF v, float* x) { hn::StoreU(v, F32(), x); }
HWY_INLINE void Store(VF v, BF16* x) {  // no NaN but the quiet one
  const auto u = hn::BitCast(U32(), v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(U32(), 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, hn::Set(U32(), 0x7FFFu)), odd));
  hn::StoreU(hn::TruncateTo(U16(), rounded), U16(), reinterpret_cast<uint16_t*>(x));
}

template <typename T>
void Encode(const T* x, int64_t n, float scale, uint8_t* out) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(hn::TruncateTo(U8(), F8Codes(hn::Mul(Load(x + i), hn::Set(F32(), scale)))), U8(), out + i);
  }
  for (; i < n; ++i) out[i] = F8E4M3FromFloat(ToFloat(x[i]) * scale);
}

// As F8Values.
template <typename T>
void Decode(const uint8_t* in, int64_t n, float first, float second, T* x) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto codes = hn::PromoteTo(U32(), hn::LoadU(U8(), in + i));
    Store(F8Values(codes, hn::Set(F32(), first), hn::Set(F32(), second)), x + i);
  }
  for (; i < n; ++i) {
    const uint32_t magnitude = in[i] & 0x7F;
    const float value = std::bit_cast<float>(magnitude << 20) * first * second;
    const uint32_t bits = magnitude == 0x7F ? 0x7FC00000u : std::bit_cast<uint32_t>(value);
    Set(std::bit_cast<float>(bits | (uint32_t{in[i]} & 0x80) << 24), x[i]);
  }
}

template <typename T>
int32_t Largest(const T* x, int64_t n) {  // the bits of its magnitude; NaN does not count
  int32_t amax = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t magnitude = std::bit_cast<int32_t>(ToFloat(x[i])) & 0x7FFFFFFF;
    amax = std::max(amax, magnitude > 0x7F800000 ? 0 : magnitude);
  }
  return amax;
}

float PowerOfTwo(int exponent) {  // -126..127
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

constexpr int kBias = 127;
constexpr int kMaxExponent = 120;  // the largest that a finite float asks for; infinity takes it too

// The smallest e with amax <= 448 · 2^e, from the bits of amax: 448 is 1.75 · 2^8.
int ExponentFor(int32_t amax_bits) {
  if (amax_bits == 0) return 0;
  const int exponent = (amax_bits >> 23) - 127 - 8 + ((amax_bits & 0x7FFFFF) > 0x600000 ? 1 : 0);
  return std::clamp(exponent, -kBias, kMaxExponent);
}

template <typename T>
void Quantize(const T* x, int64_t n, uint8_t* out) {
  for (int64_t begin = 0; begin < n; begin += kTile) {
    const int64_t count = std::min(kTile, n - begin);
    const int exponent = ExponentFor(Largest(x + begin, count));
    Encode(x + begin, count, PowerOfTwo(-exponent), out + begin);
    out[n + begin / kTile] = static_cast<uint8_t>(exponent + kBias);
  }
}

template <typename T>
void Dequantize(const uint8_t* in, int64_t n, T* x) {
  for (int64_t begin = 0; begin < n; begin += kTile) {
    const int exponent = in[n + begin / kTile] - kBias + 120;  // may be beyond a float's
    const int first = std::min(exponent, 127);
    Decode(in + begin, std::min(kTile, n - begin), PowerOfTwo(first), PowerOfTwo(exponent - first),
           x + begin);
  }
}

void QuantizeF32(const float* x, int64_t n, uint8_t* out) { Quantize(x, n, out); }
void QuantizeBF16(const BF16* x, int64_t n, uint8_t* out) { Quantize(x, n, out); }
void DequantizeF32(const uint8_t* in, int64_t n, float* x) { Dequantize(in, n, x); }
void DequantizeBF16(const uint8_t* in, int64_t n, BF16* x) { Dequantize(in, n, x); }

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(QuantizeF32);
HWY_EXPORT(QuantizeBF16);
HWY_EXPORT(DequantizeF32);
HWY_EXPORT(DequantizeBF16);

void QuantizeRow(const float* x, int64_t n, uint8_t* out) { HWY_DYNAMIC_DISPATCH(QuantizeF32)(x, n, out); }
void QuantizeRow(const BF16* x, int64_t n, uint8_t* out) { HWY_DYNAMIC_DISPATCH(QuantizeBF16)(x, n, out); }
void DequantizeRow(const uint8_t* in, int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(DequantizeF32)(in, n, x); }
void DequantizeRow(const uint8_t* in, int64_t n, BF16* x) { HWY_DYNAMIC_DISPATCH(DequantizeBF16)(in, n, x); }

}  // namespace moebius
#endif  // HWY_ONCE
