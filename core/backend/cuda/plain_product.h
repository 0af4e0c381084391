// Products by a plain kernel of ours (plain_product.cu): any dtype, shape, stride and alignment. It serves
// grouped products that the wgmma kernel cannot take, and dense ones for which cuBLASLt has no algorithm.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/backend/cuda/grouped_problem.h"

namespace moebius::cuda {

// Which dimension of a grouped product is cut into groups of different length by `offsets`.
enum class Ragged { kNone, kRows, kTerms };

// c [m, n] (= or +=) a [m, k] · b [k, n] (+ bias [n] f32). Element (i, j) of a matrix lies at
// data[i * stride + j], or at data[j * stride + i] when transposed.
//   kNone:  one product; `groups` and `offsets` are not used.
//   kRows:  group g owns rows [offsets[g], offsets[g + 1]) of a and c (m is the number of rows of both) and
//   has
//           its own b, b_group elements after that of group g - 1.
//   kTerms: group g sums over rows [offsets[g], offsets[g + 1]) of a (transposed) and b (not transposed; k is
//           not used) into a c of its own, c_group elements after that of group g - 1.
struct PlainProduct {
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  int64_t a_stride = 0;
  int64_t b_stride = 0;
  int64_t c_stride = 0;
  bool a_transposed = false;
  bool b_transposed = false;
  bool bf16 = false;  // a and b; fp32 otherwise
  bool c_bf16 = false;
  bool accumulate = false;
  const float* bias = nullptr;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  Ragged ragged = Ragged::kNone;
  int64_t groups = 0;
  int64_t b_group = 0;
  int64_t c_group = 0;
  const int64_t* offsets = nullptr;  // [groups + 1], device memory
};

PlainProduct PlainOf(const GroupedProblem& problem);

// Queues the product; the caller looks for launch errors.
void RunPlain(cudaStream_t stream, const PlainProduct& product);

}  // namespace moebius::cuda
