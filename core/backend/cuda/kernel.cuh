// What the kernels share: element types, 16-byte vectors, sums over a warp and a block, dispatch on the act
// dtype. Sums run in a fixed order, so the same call twice gives the same bits; nothing here uses atomics.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/errors.h"
#include "core/base/check.h"

namespace moebius::cuda {

using Bf16 = __nv_bfloat16;

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__host__ __device__ constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(Bf16 x) { return __bfloat162float(x); }
template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 FromFloat<Bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// N elements that one instruction loads: 16 bytes when N = kVector<T>.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  T at[N];
};
template <typename T>
constexpr int kVector = 16 / sizeof(T);

// Whether rows of a view may be read in 16-byte vectors: base, row stride and length are all multiples.
template <typename T>
bool Vectorizes(const TensorView& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && (x.stride * sizeof(T)) % 16 == 0 &&
         (x.cols() * sizeof(T)) % 16 == 0;
}

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// The sum (maximum) over a block of kThreads, known to every thread. `shared` holds kThreads / 32 floats and
// may be used again after the call.
template <int kThreads>
__device__ __forceinline__ float BlockSum(float x, float* shared) {
  x = WarpSum(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kThreads / kWarp; ++w) sum += shared[w];
  __syncthreads();
  return sum;
}
template <int kThreads>
__device__ __forceinline__ float BlockMax(float x, float* shared) {
  x = WarpMax(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  float most = shared[0];
#pragma unroll
  for (int w = 1; w < kThreads / kWarp; ++w) most = fmaxf(most, shared[w]);
  __syncthreads();
  return most;
}

// Lets a kernel take `bytes` of dynamic shared memory; 48 KiB in all are there unasked. All rank threads of a
// card share the setting, so each sets the same: the most that the card can give. What a launch asks for does
// not change by it.
template <typename Kernel>
void AllowShared(Kernel* kernel, int64_t bytes) {
  if (bytes <= (40 << 10)) return;
  int device = 0, most = 0;
  CUDA_OK(cudaGetDevice(&device));
  CUDA_OK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  cudaFuncAttributes own;
  CUDA_OK(cudaFuncGetAttributes(&own, kernel));
  CUDA_OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               most - static_cast<int>(own.sharedSizeBytes)));
}

// Calls f with a value of the element type that `act` names: ForAct(dtype, [&](auto tag) { using T =
// decltype(tag); ... }).
template <typename F>
void ForAct(DType act, const F& f) {
  if (act == DType::kF32) {
    f(float());
  } else {
    CHECK(act == DType::kBF16) << act;
    f(Bf16());
  }
}

template <typename T>
T* Data(const TensorView& x) {
  return static_cast<T*>(x.data);
}

}  // namespace moebius::cuda
