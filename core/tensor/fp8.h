// E4M3, the FP8 of weights and activations (DeepSeek-V3 §3.3; "fn": no infinities, 0x7F and 0xFF are NaN):
// how a number becomes a code. F8E4M3ToFloat (dtype.h) is the way back; fp8-inl.h has both for vectors.
#pragma once

#include <bit>
#include <cstdint>

#include "core/tensor/dtype.h"

namespace moebius {

inline constexpr float kF8E4M3Max = 448;

// Nearest E4M3 (even on ties), saturating at ±448; NaN stays NaN.
inline uint8_t F8E4M3FromFloat(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFFu;
  // Normal numbers: the bits above the third of the mantissa, rounded, with the exponent's bias moved.
  const uint32_t normal = ((magnitude + 0x7FFFFu + ((magnitude >> 20) & 1)) >> 20) - ((127 - 7) << 3);
  // Below 2^-6 the codes count steps of 2^-9, which is the last place of 2^14: adding rounds to them.
  const uint32_t small =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 16384.0f) - std::bit_cast<uint32_t>(16384.0f);
  uint32_t code = magnitude < (uint32_t{127 - 6} << 23) ? small : normal;
  code = magnitude > std::bit_cast<uint32_t>(kF8E4M3Max) ? 0x7Eu : code;
  code = magnitude > 0x7F800000u ? 0x7Fu : code;
  return static_cast<uint8_t>(code | ((bits >> 24) & 0x80u));
}

}  // namespace moebius
