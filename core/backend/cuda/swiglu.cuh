// The arithmetic of SwiGLU, for kernels that keep its results as they are and those that round them to FP8.
#pragma once

#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

// 1 / (1 + e^-x); the sum is its own instruction, so that forward and backward round alike.
__device__ __forceinline__ float Sigmoid(float x) { return __fdividef(1.0f, __fadd_rn(1.0f, expf(-x))); }

__device__ __forceinline__ float SwiGluOf(float gate, float up, float weight) {
  return gate * Sigmoid(gate) * up * weight;
}

// With a = silu(gate), a' = sigmoid * (1 + gate * (1 - sigmoid)):
//   dgate = dh * weight * up * a'; dup = dh * weight * a; d_weight += dh * a * up.
struct SwiGluGradients {
  float h, dgate, dup;
};
__device__ __forceinline__ SwiGluGradients SwiGluGradientsOf(float gate, float up, float dh, float weight,
                                                             float* d_weight) {
  const float sigmoid = Sigmoid(gate), silu = gate * sigmoid, product = silu * up;
  const float slope = sigmoid * fmaf(gate, 1.0f - sigmoid, 1.0f), dw = dh * weight;
  *d_weight = fmaf(dh, product, *d_weight);
  return {product * weight, dw * up * slope, dw * silu};
}

// fp8_swiglu.cu: what the rounded views of the arguments ask for. Rows are whole vectors, aligned.
void SwiGluToFp8(cudaStream_t stream, const SwiGluArgs& args);
void SwiGluBackwardToFp8(cudaStream_t stream, const SwiGluBackwardArgs& args);

}  // namespace moebius::cuda
