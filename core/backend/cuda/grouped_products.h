// Grouped products (one weight matrix a group of rows): which kernel makes which.
#pragma once

#include <cuda_runtime.h>

#include "core/backend/cuda/grouped_problem.h"
#include "core/backend/cuda/grouped_wgmma.h"

namespace moebius::cuda {

class GroupedProducts {
 public:
  explicit GroupedProducts(const cudaDeviceProp& properties);

  // Queues it; the caller looks for launch errors. No host thread reads the offsets.
  void Run(cudaStream_t stream, const GroupedProblem& problem) const;

 private:
  GroupedWgmma wgmma_;
};

}  // namespace moebius::cuda
