// FP8 rows for the wire (DeepSeek-V3 §3.3, deepseek.md 2.3): E4M3 with a power-of-two scale for each 1x128
// tile of a row; the last tile may be shorter.
//
// A row of n values is n codes, then one exponent byte for each tile (e + 127, the UE8M0 of the checkpoints):
// value = code · 2^e with the smallest e that keeps the tile's largest finite |x| within 448. Rounding is to
// nearest even, beyond 448 codes saturate, NaN stays NaN, infinities come back as infinities.
//
// Error: with A the tile's largest |x| (A < 2^127), each x comes back within max(|x| / 16, A · 2^-17.8); a
// tile whose A is below 2^-118.2 within 2^-137 absolutely. Powers of two up to A, and zeros, come back
// exactly down to A · 2^-16.
#pragma once

#include <bit>
#include <cstdint>

#include "core/tensor/dtype.h"

namespace moebius {

inline constexpr int64_t kTile = 128;

inline int64_t NumTiles(int64_t n) { return (n + kTile - 1) / kTile; }
inline int64_t QuantizedBytes(int64_t n) { return n + NumTiles(n); }

// Nearest E4M3 (even on ties), saturating at ±448. The rows are quantised by vectors with the same bits.
inline uint8_t F8E4M3FromFloat(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFFu;
  // Normal numbers: the bits above the third of the mantissa, rounded, with the exponent's bias moved.
  const uint32_t normal = ((magnitude + 0x7FFFFu + ((magnitude >> 20) & 1)) >> 20) - ((127 - 7) << 3);
  // Below 2^-6 the codes count steps of 2^-9, which is the last place of 2^14: adding rounds to them.
  const uint32_t small =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 16384.0f) - std::bit_cast<uint32_t>(16384.0f);
  uint32_t code = magnitude < (uint32_t{127 - 6} << 23) ? small : normal;
  code = magnitude > std::bit_cast<uint32_t>(448.0f) ? 0x7Eu : code;
  code = magnitude > 0x7F800000u ? 0x7Fu : code;
  return static_cast<uint8_t>(code | ((bits >> 24) & 0x80u));
}

// x [n]; out, in: [QuantizedBytes(n)].
void QuantizeRow(const float* x, int64_t n, uint8_t* out);
void QuantizeRow(const BF16* x, int64_t n, uint8_t* out);
void DequantizeRow(const uint8_t* in, int64_t n, float* x);
void DequantizeRow(const uint8_t* in, int64_t n, BF16* x);

}  // namespace moebius
