// Operands of products as FP8 keeps them (kernel_args.h, Rounding::kFp8), in fp32: x becomes E4M3(x / s) * s
// with a scale s = amax / 448 for each tile, divided in fp32. An emulation: the product that follows is
// fp32's, and the rounding costs time that hardware with FP8 does not take. NaN does not count for amax and
// stays NaN; a tile with an infinity becomes NaN.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace moebius {

inline constexpr int64_t kFp8Tile = 128;

// What shares a scale: 1 x 128 along a row, 128 x 1 along a column, 128 x 128; shorter at the ends.
enum class Fp8Tile { kRow, kColumn, kBlock };

// x [at most 128 rows, cols] f32 or bf16, whose first element starts a tile; out [rows, cols] f32,
// contiguous.
void RoundStripeToFp8(const TensorView& x, Fp8Tile tile, float* out);

}  // namespace moebius
