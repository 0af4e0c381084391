// Sums in double precision over a warp and a block, in a fixed order (kernel.cuh has those of floats).
#pragma once

#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

__device__ __forceinline__ double WarpSum(double x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// Known to every thread. `shared` holds kThreads / 32 doubles and may be used again after the call.
template <int kThreads>
__device__ __forceinline__ double BlockSum(double x, double* shared) {
  x = WarpSum(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kThreads / kWarp; ++w) sum += shared[w];
  __syncthreads();
  return sum;
}

}  // namespace moebius::cuda
