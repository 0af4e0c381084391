// Selection of the best of up to 512 values by one warp, in the order of cpu/top_k.h: falling value, a tie to
// the lower index, NaN below every number (and of two NaN the later one first).
//
// Lane l holds the values l, l + 32, l + 64, ... in kWidth registers.
#pragma once

#include <type_traits>

#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

constexpr int kMaxExperts = 512;
constexpr int kMaxTopK = kWarp;  // lane k keeps choice k

// An unsigned number that orders as the values do; 0 is left for what cannot be chosen.
__device__ __forceinline__ unsigned RankKey(float value, int index) {
  if (value != value) return 1u + static_cast<unsigned>(index);
  const unsigned bits = value == 0 ? 0u : __float_as_uint(value);  // -0 ties with 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;          // -infinity: 0x007FFFFF
}

// The index of the largest key of the warp, whose key becomes 0. All lanes take part and get the index.
template <int kWidth>
__device__ __forceinline__ int TakeBest(unsigned (&keys)[kWidth], int lane) {
  unsigned best = keys[0];
  unsigned at = lane;
#pragma unroll
  for (int i = 1; i < kWidth; ++i) {
    if (keys[i] > best) {
      best = keys[i];
      at = lane + kWarp * i;
    }
  }
  const unsigned most = __reduce_max_sync(kAllLanes, best);
  const int winner = static_cast<int>(__reduce_min_sync(kAllLanes, best == most ? at : 0xFFFFFFFFu));
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (winner == lane + kWarp * i) keys[i] = 0;
  }
  return winner;
}

// A row of n floats as the warp holds it, `pad` beyond its end.
template <int kWidth>
__device__ __forceinline__ void LoadRow(const float* row, int n, int lane, float pad, float (&x)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int e = lane + kWarp * i;
    x[i] = e < n ? row[e] : pad;
  }
}

// Calls f with std::integral_constant<int, kWidth> for the registers a lane needs.
template <typename F>
void ForWidth(int64_t experts, const F& f) {
  CHECK_LE(experts, kMaxExperts) << "experts that the router's kernels hold";
  if (experts <= 32) {
    f(std::integral_constant<int, 1>());
  } else if (experts <= 64) {
    f(std::integral_constant<int, 2>());
  } else if (experts <= 128) {
    f(std::integral_constant<int, 4>());
  } else if (experts <= 256) {
    f(std::integral_constant<int, 8>());
  } else {
    f(std::integral_constant<int, 16>());
  }
}

}  // namespace moebius::cuda
