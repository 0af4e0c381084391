// FP8 rows for the wire (DeepSeek-V3 §3.3, deepseek.md 2.3): E4M3 with a power-of-two scale for each 1x128
// tile of a row; the last tile may be shorter.
//
// A row of n values is n codes, then one exponent byte for each tile (e + 127, the UE8M0 of the checkpoints):
// value = code · 2^e with the smallest e that keeps the tile's largest |x| within 448. Rounding is to nearest
// even, beyond 448 codes saturate, NaN stays NaN and counts for no e; infinities come back as infinities,
// what is ordinary beside them as zeros.
//
// Error: with A the tile's largest |x| (A < 2^127), each x comes back within max(|x| / 16, A · 2^-17.8); a
// tile whose A is below 2^-118.2 within 2^-137 absolutely. Powers of two up to A, and zeros, come back
// exactly down to A · 2^-16.
#pragma once

#include <cstdint>

#include "core/tensor/dtype.h"

namespace moebius {

inline constexpr int64_t kTile = 128;

inline int64_t NumTiles(int64_t n) { return (n + kTile - 1) / kTile; }
inline int64_t QuantizedBytes(int64_t n) { return n + NumTiles(n); }

// x [n]; out, in: [QuantizedBytes(n)].
void QuantizeRow(const float* x, int64_t n, uint8_t* out);
void QuantizeRow(const BF16* x, int64_t n, uint8_t* out);
void DequantizeRow(const uint8_t* in, int64_t n, float* x);
void DequantizeRow(const uint8_t* in, int64_t n, BF16* x);

}  // namespace moebius
