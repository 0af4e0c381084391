// Grouped products of bf16 by Hopper's tensor cores (wgmma), in one launch that reads the offsets on the
// device. What it cannot take goes to plain_product.h.
#pragma once

#include <cuda_runtime.h>

#include "core/backend/cuda/grouped_problem.h"

namespace moebius::cuda {

// What a block takes at a time: 128 rows and 128 columns, or 256; kWidePairs: with clusters of two blocks,
// which have the same columns and share what both need of b.
enum class GroupedTiles { kNarrow, kWide, kWidePairs };

class GroupedWgmma {
 public:
  // The device is current.
  explicit GroupedWgmma(const cudaDeviceProp& properties);

  // Compute capability 9.0, bf16, `in` and `out` multiples of 64, rows that start at multiples of 16 bytes.
  bool Takes(const GroupedProblem& problem) const;

  // Queues a problem that it takes. Every element of a result is summed in fp32 in a fixed order, and written
  // by one thread.
  cudaError_t Run(cudaStream_t stream, const GroupedProblem& problem) const;

  // As Run, which chooses the tiles itself.
  cudaError_t RunTiled(cudaStream_t stream, const GroupedProblem& problem, GroupedTiles tiles) const;

 private:
  int multiprocessors_ = 0;  // 0: not Hopper
  void* encode_ = nullptr;   // the driver's cuTensorMapEncodeTiled
};

}  // namespace moebius::cuda
