// Rounding to FP8 (fp8_quantize.h) of what a block of threads holds: a square of 128 x 128 bf16, or a row's
// tiles.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "core/backend/cuda/fp8_quantize.h"

namespace moebius::cuda {

constexpr int kSquare = static_cast<int>(kFp8Tile);
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;

__host__ __device__ constexpr int64_t TilesOf(int64_t elements) {
  return (elements + kFp8Tile - 1) / kFp8Tile;
}

// Eight bf16 of a row; zeros where they lie outside the matrix.
__device__ __forceinline__ uint4 LoadEight(const __nv_bfloat16* x, bool inside) {
  return inside ? __ldg(reinterpret_cast<const uint4*>(x)) : make_uint4(0, 0, 0, 0);
}

// The larger magnitudes of two pairs of bf16; NaN does not count.
__device__ __forceinline__ uint32_t Larger(uint32_t most, uint32_t pair) {
  const __nv_bfloat162 result = __hmax2(*reinterpret_cast<const __nv_bfloat162*>(&most),
                                        __habs2(*reinterpret_cast<const __nv_bfloat162*>(&pair)));
  return *reinterpret_cast<const uint32_t*>(&result);
}
__device__ __forceinline__ uint32_t LargestPair(uint4 x) {
  return Larger(Larger(Larger(Larger(0, x.x), x.y), x.z), x.w);
}
__device__ __forceinline__ float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float High(uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000u); }

// Division by a tile's scale, amax / 448 (1 when that is 0). The product with the rounded reciprocal,
// corrected by its remainder, is the rounded quotient. A power of two on both sides keeps the steps inside
// fp32's range.
struct alignas(16) Scale {
  float scale;
  float factor;
  float divisor;  // scale * factor
  float reciprocal;
};
__device__ __forceinline__ Scale ScaleOf(float amax) {
  const float quotient = amax / 448.0f, scale = quotient == 0 ? 1.0f : quotient;
  const float factor = scale < 0x1p-80f ? 0x1p100f : scale > 0x1p100f ? 0x1p-100f : 1.0f;
  return {scale, factor, scale * factor, 1.0f / (scale * factor)};
}
__device__ __forceinline__ float Divide(float x, const Scale& s) {
  const float dividend = x * s.factor, quotient = dividend * s.reciprocal;
  return fmaf(fmaf(-quotient, s.divisor, dividend), s.reciprocal, quotient);
}
// Two values divided and rounded, the first in the low byte.
__device__ __forceinline__ uint32_t RoundPair(float low, float high, const Scale& s) {
  return __nv_cvt_float2_to_fp8x2(make_float2(Divide(low, s), Divide(high, s)), __NV_SATFINITE, __NV_E4M3);
}
__device__ __forceinline__ uint32_t RoundFour(uint32_t low, uint32_t high, const Scale& s) {
  return RoundPair(Low(low), High(low), s) | RoundPair(Low(high), High(high), s) << 16;
}
__device__ __forceinline__ uint2 RoundEight(uint4 x, const Scale& s) {
  return make_uint2(RoundFour(x.x, x.y, s), RoundFour(x.z, x.w, s));
}

// Eight lanes share a tile of a row: lane l of them has elements 8 l .. 8 l + 7 in x[0] and 64 more in x[1].
__device__ __forceinline__ Scale ScaleOfEightLanes(const uint4 (&x)[2]) {
  const uint32_t most = Larger(LargestPair(x[0]), LargestPair(x[1]));
  float amax = fmaxf(Low(most), High(most));
#pragma unroll
  for (int step = 1; step < 8; step *= 2) amax = fmaxf(amax, __shfl_xor_sync(kWholeWarp, amax, step));
  return ScaleOf(amax);
}

// A matrix being rounded, in device memory: values are null where it is not wanted.
struct Fp8Target {
  uint8_t* values;
  float* scales;
  int64_t terms;
  int64_t scale_stride;

  Fp8Target() = default;
  explicit Fp8Target(const Fp8Matrix& m)
      : values(m.values), scales(m.scales), terms(m.terms), scale_stride(m.scale_stride) {}
};

// Which 128 rows of which group a block rounds: rows [row, row_end), stripe number `stripe` of all.
struct Stripe {
  int64_t stripe;
  int64_t row;
  int64_t row_end;  // of the group
};

// Stripe number s.stripe when every group is cut into stripes of 128 rows; false past the last. Every warp
// finds it for itself: a lane counts the stripes of one group in 32.
__device__ __forceinline__ bool FindStripe(const int64_t* offsets, int64_t groups, Stripe* s) {
  const int lane = threadIdx.x % 32;
  int64_t stripe = s->stripe;
  for (int64_t first = 0; first < groups; first += 32) {
    const int64_t g = first + lane;
    const int64_t begin = g < groups ? offsets[g] : 0, end = g < groups ? offsets[g + 1] : 0;
    const int64_t stripes = TilesOf(end - begin);
    int64_t sum = stripes;  // of the lanes up to this one
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int64_t below = __shfl_up_sync(kWholeWarp, sum, step);
      if (lane >= step) sum += below;
    }
    const unsigned past = __ballot_sync(kWholeWarp, stripe < sum);
    if (past != 0) {
      const int owner = __ffs(static_cast<int>(past)) - 1;
      s->row = __shfl_sync(kWholeWarp, begin + (stripe - (sum - stripes)) * kFp8Tile, owner);
      s->row_end = __shfl_sync(kWholeWarp, end, owner);
      return true;
    }
    stripe -= __shfl_sync(kWholeWarp, sum, 31);
  }
  return false;
}

// A thread of the block holds kRows adjacent rows of 8 adjacent columns of a square: a block of 256 threads
// 8, one of 512 4.
template <int kRows>
constexpr int kThreadsOf = kSquare* kSquare / (kRows * 8);
struct InSquare {
  int eight = threadIdx.x % 16;  // which columns
  int strip = threadIdx.x / 16;  // which rows
};

// What a block needs to turn a square's columns into lines.
template <int kRows>
struct SquareMemory {
  alignas(16) uint32_t most_of_warps[kThreadsOf<kRows> / 32][kSquare / 2];
  alignas(16) Scale scales[kSquare];
  alignas(16) uint8_t turned[kSquare * kSquare];
};

// Where the scale of a column lies: threads that want the same one of their eight find them side by side.
__device__ __forceinline__ int ScalePlace(int column) { return column % 8 * (kSquare / 8) + column / 8; }

// Rounds each row of the square, tile number `tile` of its row, as kAlongRow does.
template <int kRows>
__device__ __forceinline__ void RoundRows(const uint4 (&x)[kRows], const Stripe& stripe, int64_t tile,
                                          const Fp8Target& to) {
  const InSquare in;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    uint32_t most = LargestPair(x[i]);
#pragma unroll
    for (int step = 1; step < 16; step *= 2) most = Larger(most, __shfl_xor_sync(kWholeWarp, most, step));
    const Scale scale = ScaleOf(fmaxf(Low(most), High(most)));
    const int64_t row = stripe.row + in.strip * kRows + i;
    if (row >= stripe.row_end) continue;
    *reinterpret_cast<uint2*>(to.values + row * to.terms + tile * kFp8Tile + in.eight * 8) =
        RoundEight(x[i], scale);
    if (in.eight == 0) to.scales[tile * to.scale_stride + row] = scale.scale;
  }
}

// Rounds by `scale_of(c)`, the scale of a thread's column c, and stores columns [column, column + 128) of
// `columns` as lines, from line `line` on, their terms from `term` on. Values pass through shared memory:
// column c's term t at byte t ^ (c / 8 * 8) of its 128, which neither side finds in one bank.
template <int kRows, typename ScaleOfColumn>
__device__ __forceinline__ void StoreTurned(const uint4 (&x)[kRows], int64_t column, int64_t columns,
                                            int64_t line, int64_t term, uint8_t* turned, const Fp8Target& to,
                                            const ScaleOfColumn& scale_of) {
  const InSquare in;
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    const Scale scale = scale_of(c);
    const auto element = [&](int i) {
      const uint4 v = x[i];
      const uint32_t pair = c / 2 == 0 ? v.x : c / 2 == 1 ? v.y : c / 2 == 2 ? v.z : v.w;
      return c % 2 == 0 ? Low(pair) : High(pair);
    };
    uint32_t fours[kRows / 4];
#pragma unroll
    for (int i = 0; i < kRows / 4; ++i) {
      fours[i] = RoundPair(element(4 * i), element(4 * i + 1), scale) |
                 RoundPair(element(4 * i + 2), element(4 * i + 3), scale) << 16;
    }
    uint8_t* to_column = &turned[(in.eight * 8 + c) * kSquare + (in.strip * kRows ^ in.eight * 8)];
    if constexpr (kRows == 8) {
      *reinterpret_cast<uint2*>(to_column) = make_uint2(fours[0], fours[1]);
    } else {
      *reinterpret_cast<uint32_t*>(to_column) = fours[0];
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kSquare * 8 / kThreadsOf<kRows>; ++i) {
    const int c = (threadIdx.x + i * kThreadsOf<kRows>) / 8, piece = threadIdx.x % 8 * 2, swap = c / 8;
    if (column + c >= columns) break;
    uint4 v = *reinterpret_cast<const uint4*>(&turned[c * kSquare + (piece ^ (swap & ~1)) * 8]);
    if (swap % 2 == 1) v = make_uint4(v.z, v.w, v.x, v.y);
    *reinterpret_cast<uint4*>(to.values + (line + c) * to.terms + term + piece * 8) = v;
  }
}

// Rounds each column of the square as kAlongColumn does: columns [column, column + 128) of a source of
// `columns`; rows past the group's end are zeros. `memory` may be used again at once, for a square.
template <int kRows>
__device__ __forceinline__ void RoundColumns(const uint4 (&x)[kRows], const Stripe& stripe, int64_t column,
                                             int64_t columns, SquareMemory<kRows>& memory,
                                             const Fp8Target& to) {
  const InSquare in;
  uint4 most = make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    most = make_uint4(Larger(most.x, x[i].x), Larger(most.y, x[i].y), Larger(most.z, x[i].z),
                      Larger(most.w, x[i].w));
  }
  most.x = Larger(most.x, __shfl_xor_sync(kWholeWarp, most.x, 16));
  most.y = Larger(most.y, __shfl_xor_sync(kWholeWarp, most.y, 16));
  most.z = Larger(most.z, __shfl_xor_sync(kWholeWarp, most.z, 16));
  most.w = Larger(most.w, __shfl_xor_sync(kWholeWarp, most.w, 16));
  if (threadIdx.x % 32 < 16) {
    *reinterpret_cast<uint4*>(&memory.most_of_warps[threadIdx.x / 32][in.eight * 4]) = most;
  }
  __syncthreads();
  if (threadIdx.x < kSquare) {
    const int c = threadIdx.x;
    uint32_t pair = 0;
#pragma unroll
    for (int w = 0; w < kThreadsOf<kRows> / 32; ++w) pair = Larger(pair, memory.most_of_warps[w][c / 2]);
    const Scale scale = ScaleOf(c % 2 == 0 ? Low(pair) : High(pair));
    memory.scales[ScalePlace(c)] = scale;
    if (column + c < columns) to.scales[stripe.stripe * to.scale_stride + column + c] = scale.scale;
  }
  __syncthreads();
  StoreTurned(x, column, columns, column, stripe.stripe * kFp8Tile, memory.turned, to,
              [&](int c) { return memory.scales[ScalePlace(in.eight * 8 + c)]; });
}

}  // namespace moebius::cuda
