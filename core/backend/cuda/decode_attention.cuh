// What the two kernels of decode attention share. A sequence's keys are cut into splits of equal length,
// which depends on the cache's capacity alone: the same bits in any batch.
#pragma once

#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

constexpr int kDecodeHeads = 16;  // query heads of one key head that a block takes
constexpr int kDecodeKeys = 64;   // keys of a tile

template <typename T>
struct DecodeProblem {
  const T* q;
  const T* k;
  const T* v;
  const int32_t* lengths;
  int64_t q_stride, k_stride, v_stride, capacity;
  int batch, heads, groups, d, dv;
  bool vector;  // all rows may be read in 16-byte pieces
  float scale;
  int splits;
  int split_keys;
  float* out;        // [batch, splits, heads, dv], not divided by the sum
  float2* max_sums;  // [batch, splits, heads]: the largest score, unscaled, and the sum
};

// What a block owns: sequence blockIdx.z, split blockIdx.x, and of one key head kDecodeHeads query heads.
struct DecodeBlock {
  int group;
  int first_head;
  int heads;
  int begin, end;      // keys
  int64_t first_row;   // of the sequence's cache
  int64_t first_part;  // of `out` and `max_sums`, in heads

  template <typename T>
  __device__ __forceinline__ explicit DecodeBlock(const DecodeProblem<T>& p) {
    const int per_group = p.heads / p.groups, chunks = (per_group + kDecodeHeads - 1) / kDecodeHeads;
    group = blockIdx.y / chunks;
    const int at = static_cast<int>(blockIdx.y) % chunks * kDecodeHeads;
    first_head = group * per_group + at;
    heads = min(kDecodeHeads, per_group - at);
    const int length = min(p.lengths[blockIdx.z], static_cast<int>(p.capacity));
    begin = blockIdx.x * p.split_keys;
    end = min(begin + p.split_keys, length);
    first_row = static_cast<int64_t>(blockIdx.z) * p.capacity;
    first_part = (static_cast<int64_t>(blockIdx.z) * p.splits + blockIdx.x) * p.heads + first_head;
  }
};

// Dynamic shared memory of the tensor core kernel, 0 where it does not take the problem; and its launch.
int64_t DecodeTensorBytes(const DecodeProblem<Bf16>& problem);
void DecodeByTensorCores(cudaStream_t stream, const DecodeProblem<Bf16>& problem, dim3 grid);

}  // namespace moebius::cuda
