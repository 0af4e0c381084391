// E4M3 by vectors of floats, with the bits of fp8.h. Highway's per-target header: include it after highway.h
// inside a foreach_target file.

// NOLINTNEXTLINE: the guard toggles with the target
#if defined(MOEBIUS_CORE_TENSOR_FP8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_TENSOR_FP8_INL_H_
#undef MOEBIUS_CORE_TENSOR_FP8_INL_H_
#else
#define MOEBIUS_CORE_TENSOR_FP8_INL_H_
#endif

#include <bit>
#include <cstdint>

#include "core/tensor/fp8.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F8Floats = hn::ScalableTag<float>;
using F8Bits = hn::RebindToUnsigned<F8Floats>;

// F8E4M3FromFloat, lane by lane: a code in the low byte of each.
HWY_INLINE hn::Vec<F8Bits> F8Codes(hn::Vec<F8Floats> v) {
  using Signed = hn::RebindToSigned<F8Floats>;
  const auto set = [](uint32_t value) HWY_ATTR { return hn::Set(F8Bits(), value); };
  const auto bits = hn::BitCast(F8Bits(), v), magnitude = hn::And(bits, set(0x7FFFFFFF));
  const auto above = [&](uint32_t than) HWY_ATTR {  // magnitudes are positive as signed numbers too
    return hn::RebindMask(F8Bits(), hn::Gt(hn::BitCast(Signed(), magnitude), hn::Set(Signed(), than)));
  };
  const auto odd = hn::And(hn::ShiftRight<20>(magnitude), set(1));
  const auto normal =
      hn::Sub(hn::ShiftRight<20>(hn::Add(hn::Add(magnitude, set(0x7FFFF)), odd)), set((127 - 7) << 3));
  const auto shifted = hn::Add(hn::BitCast(F8Floats(), magnitude), hn::Set(F8Floats(), 16384.0f));
  const auto small = hn::Sub(hn::BitCast(F8Bits(), shifted), set(std::bit_cast<uint32_t>(16384.0f)));
  auto code = hn::IfThenElse(above((uint32_t{127 - 6} << 23) - 1), normal, small);
  code = hn::IfThenElse(above(std::bit_cast<uint32_t>(kF8E4M3Max)), set(0x7E), code);
  code = hn::IfThenElse(above(0x7F800000), set(0x7F), code);
  return hn::Or(code, hn::And(hn::ShiftRight<24>(bits), set(0x80)));
}

// The codes' values times first * second * 2^-120: a code's exponent and mantissa, read as those of a float
// (subnormal ones too), are 2^120 too small.
HWY_INLINE hn::Vec<F8Floats> F8Values(hn::Vec<F8Bits> codes, hn::Vec<F8Floats> first,
                                      hn::Vec<F8Floats> second) {
  const auto magnitude = hn::And(codes, hn::Set(F8Bits(), 0x7Fu));
  const auto value = hn::Mul(hn::Mul(hn::BitCast(F8Floats(), hn::ShiftLeft<20>(magnitude)), first), second);
  const auto bits = hn::IfThenElse(hn::Eq(magnitude, hn::Set(F8Bits(), 0x7Fu)),
                                   hn::Set(F8Bits(), 0x7FC00000u), hn::BitCast(F8Bits(), value));
  const auto sign = hn::ShiftLeft<24>(hn::Xor(codes, magnitude));
  return hn::BitCast(F8Floats(), hn::Or(bits, sign));
}

}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // guard
