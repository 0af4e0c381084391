// Operands of FP8 products as kernel_args.h (Rounding::kFp8) rounds them: E4M3 values with an fp32 scale for
// each tile of 128 terms or block of 128 x 128. Nothing here needs more than CUDA.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace moebius::cuda {

constexpr int64_t kFp8Tile = 128;

// What shares a scale, in the source as it is stored.
enum class Fp8Tiles { kAlongRow, kAlongColumn, kBlocks };

// A matrix to round: x [rows, cols], rows `stride` elements apart.
//   kAlongRow:    every row is cut into tiles. Groups do not matter.
//   kAlongColumn: every column of group g, rows [offsets[g], offsets[g + 1]), is cut from the group's first
//   row on. kBlocks:      `groups` matrices of rows / groups rows each.
struct Fp8Source {
  const void* x = nullptr;
  bool bf16 = true;  // fp32 otherwise
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  Fp8Tiles tiles = Fp8Tiles::kAlongRow;
  bool transposed = false;  // kBlocks: the terms of the sums lie along the columns of x
  int64_t groups = 1;
  const int64_t* offsets = nullptr;  // [groups + 1] in device memory; without them one group has all rows
};

// The rounded matrix: values [lines, terms] of E4M3, terms (those of the sums) adjacent and filled up with
// zeros to multiples of 128. Lines are the rows of the source for kAlongRow, its columns for kAlongColumn;
// for kBlocks the rows, or if transposed, group after group, the columns.
//   kAlongColumn: the terms of group g begin at 128 times the number of tiles that the groups before it have.
//   Scales of tiles:  scales[tile * scale_stride + line]
//   Scales of blocks: scales[(g * blocks along a group's lines + line / 128) * scale_stride + tile]
// Both are as cuBLASLt takes them (VEC128_32F, where 4 divides the lines, and BLK128x128_32F).
struct Fp8Matrix {
  uint8_t* values = nullptr;
  float* scales = nullptr;
  int64_t lines = 0;
  int64_t terms = 0;
  int64_t scale_stride = 0;
  int64_t scale_count = 0;
  bool blocks = false;

  int64_t ValueBytes() const { return (lines * terms + 255) / 256 * 256; }
  int64_t Bytes() const { return ValueBytes() + (scale_count * 4 + 255) / 256 * 256; }
  // `memory` holds Bytes(), 64-byte aligned.
  void Place(void* memory) {
    values = static_cast<uint8_t*>(memory);
    scales = reinterpret_cast<float*>(values + ValueBytes());
  }
};
Fp8Matrix MatrixOf(const Fp8Source& source);  // not placed yet

// Whether Quantize takes it: bf16, rows at multiples of 16 bytes, a multiple of 8 columns.
bool CanQuantize(const Fp8Source& source);

// Queues the rounding into a placed matrix; the caller looks for launch errors.
void Quantize(cudaStream_t stream, const Fp8Source& source, const Fp8Matrix& to);

// The same for kAlongColumn and, of the rows of its groups, for kAlongRow, from one read.
void QuantizeBoth(cudaStream_t stream, const Fp8Source& source, const Fp8Matrix& rows,
                  const Fp8Matrix& columns);

// fp8_round.cu: out [rows, cols] f32, contiguous = the rounded values times their scales, from a source of
// any dtype, stride and size; rows outside the groups of kAlongColumn are left as they are. A plain kernel:
// it serves cards and shapes for which there are no FP8 products, and is what the fast ones are measured by.
void RoundToFp8(cudaStream_t stream, const Fp8Source& source, float* out);

}  // namespace moebius::cuda
