// What becomes of a warpgroup's sums (wgmma.cuh says which a thread holds): stored as bf16, stored or added
// as fp32. Rows from `row_end` on and columns from `columns` on are left alone; `columns` is a multiple of 8.
// `row` is the thread's first; row + 8 is its other.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace moebius::cuda {

__device__ __forceinline__ void ExchangePairs(uint32_t (&pairs)[4], int lane) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & bit) != 0) continue;
      const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, upper ? pairs[i] : pairs[i | bit], bit);
      if (upper) {
        pairs[i] = got;
      } else {
        pairs[i | bit] = got;
      }
    }
  }
}

// The four threads of a row exchange pairs, so that each stores 8 adjacent elements: the pairs i of thread t
// become pair t of thread i.
template <int kSums>
__device__ __forceinline__ void StoreBf16(__nv_bfloat16* c, int64_t stride, int row, int row_end, int column,
                                          int columns, const float (&sums)[kSums]) {
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const bool stores = row + 8 * h < row_end;
    __nv_bfloat16* to = c + (row + 8 * h) * stride + column;
#pragma unroll
    for (int j = 0; j < kSums / 4; j += 4) {
      uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const __nv_bfloat162 pair =
            __floats2bfloat162_rn(sums[(j + i) * 4 + 2 * h], sums[(j + i) * 4 + 2 * h + 1]);
        pairs[i] = *reinterpret_cast<const uint32_t*>(&pair);
      }
      ExchangePairs(pairs, lane);
      if (stores && column + (j + lane) * 8 < columns) {
        *reinterpret_cast<uint4*>(to + (j + lane) * 8) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      }
    }
  }
}

// The same in two steps: the elements of c that a thread's sums are added to (zeros when not `add`), then
// their sums.
template <int kPairs>
__device__ __forceinline__ void LoadFloats(const float* c, int64_t stride, int row, int row_end, int column,
                                           int columns, bool add, float2 (&old)[kPairs]) {
  const float* from = c + row * stride + column + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int h = i % 2, j = i / 2;
    old[i] = add && row + 8 * h < row_end && column + j * 8 < columns
                 ? *reinterpret_cast<const float2*>(from + 8 * h * stride + j * 8)
                 : make_float2(0, 0);
  }
}
template <int kPairs>
__device__ __forceinline__ void AddAndStoreFloats(float* c, int64_t stride, int row, int row_end, int column,
                                                  int columns, const float2 (&old)[kPairs],
                                                  const float (&sums)[2 * kPairs]) {
  float* to = c + row * stride + column + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int h = i % 2, j = i / 2;
    if (row + 8 * h < row_end && column + j * 8 < columns) {
      *reinterpret_cast<float2*>(to + 8 * h * stride + j * 8) =
          make_float2(old[i].x + sums[2 * i], old[i].y + sums[2 * i + 1]);
    }
  }
}

// c += sums, where `columns` is a multiple of 64. Loads go out together, 64 columns at a time, before the
// first store; a test of each 8 columns instead of each 64 cost a third of the kernel's speed on an H200.
template <int kSums>
__device__ __forceinline__ void AddToFloats(float* c, int64_t stride, int row, int row_end, int column,
                                            int columns, const float (&sums)[kSums]) {
  float* to = c + row * stride + column + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < kSums / 4; j += 8) {
    if (column + j * 8 >= columns) break;
    float2 old[2][8];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (row + 8 * h < row_end) {
          old[h][i] = *reinterpret_cast<const float2*>(to + 8 * h * stride + (j + i) * 8);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float* sum = &sums[(j + i) * 4 + 2 * h];
        if (row + 8 * h < row_end) {
          *reinterpret_cast<float2*>(to + 8 * h * stride + (j + i) * 8) =
              make_float2(old[h][i].x + sum[0], old[h][i].y + sum[1]);
        }
      }
    }
  }
}

// c += sums, or = when not `add`, for any `columns`. Loads go out together, 64 columns at a time, before the
// first store.
template <int kSums>
__device__ __forceinline__ void StoreFloats(float* c, int64_t stride, int row, int row_end, int column,
                                            int columns, bool add, const float (&sums)[kSums]) {
  float* to = c + row * stride + column + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < kSums / 4; j += 8) {
    if (column + j * 8 >= columns) break;
    float2 old[2][8];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        old[h][i] = add && row + 8 * h < row_end && column + (j + i) * 8 < columns
                        ? *reinterpret_cast<const float2*>(to + 8 * h * stride + (j + i) * 8)
                        : make_float2(0, 0);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float* sum = &sums[(j + i) * 4 + 2 * h];
        if (row + 8 * h < row_end && column + (j + i) * 8 < columns) {
          *reinterpret_cast<float2*>(to + 8 * h * stride + (j + i) * 8) =
              make_float2(old[h][i].x + sum[0], old[h][i].y + sum[1]);
        }
      }
    }
  }
}

}  // namespace moebius::cuda
