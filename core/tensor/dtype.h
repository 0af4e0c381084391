// Element types: what a view's bytes mean. Names are those of safetensors.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string_view>

namespace moebius {

enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU32,
  kU16,
  kU8,
  kBool
};

int64_t SizeOf(DType dtype);         // bytes of one element
std::string_view Name(DType dtype);  // "F32", "BF16", "F8_E4M3", "I64", ...
std::optional<DType> DTypeFromName(std::string_view name);
std::ostream& operator<<(std::ostream& out, DType dtype);

// bfloat16 as storage: round to nearest even; NaN stays NaN.
struct BF16 {
  uint16_t bits = 0;

  static BF16 FromFloat(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
    return {static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16)};
  }
  float ToFloat() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

float F16ToFloat(uint16_t bits);
float F8E4M3ToFloat(uint8_t bits);  // the "fn" variant of the checkpoints: no infinities, 0x7F/0xFF are NaN

}  // namespace moebius
