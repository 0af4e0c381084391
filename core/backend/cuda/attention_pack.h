// Between our layouts and those that cuDNN reads and writes. All views are bf16 with rows of 16-byte pieces.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/tensor/tensor.h"

namespace moebius::cuda {

// keys [T, G, dk + dr] = [k | k_shared] of every key head.
void PackKeys(cudaStream_t stream, const TensorView& k, const TensorView& k_shared, const TensorView& keys);

// The way back, of gradients: dk [T, G, dk], and dk_shared [T, 1, dr] = sum over key heads in order, in fp32.
void SplitKeyGradient(cudaStream_t stream, const TensorView& d_keys, const TensorView& dk,
                      const TensorView& dk_shared);

// Sequences of up to `length` tokens; sequence s begins at token starts[s] (device memory, batch + 1 of
// them).
struct StatsLayout {
  const int32_t* starts;
  int64_t batch;
  int64_t length;
  int64_t heads;
  int64_t lse_stride;  // tokens in all
};
// lse [heads, lse_stride] from stats [batch, heads, length], and back; stats past a sequence's end are zeros.
void UnpackStats(cudaStream_t stream, const StatsLayout& layout, const float* stats, float* lse);
void PackStats(cudaStream_t stream, const StatsLayout& layout, const float* lse, float* stats);

}  // namespace moebius::cuda
