// Attention by cuDNN: bf16 on Hopper and newer, one execution plan for each shape, built when first seen.
// What it does not take is left to our own kernels (attention_fallback.h).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "core/backend/kernel_args.h"

namespace moebius::cuda {

class AttentionPlans {
 public:
  // Creates nothing on the device: cuDNN is started by the first call that it may take.
  // `deterministic`: the same bits each time, for a slower backward and more memory.
  AttentionPlans(const cudaDeviceProp& properties, bool deterministic);
  ~AttentionPlans();

  // Device memory of one call, 256-byte aligned; asked for once.
  using Allocate = std::function<void*(int64_t bytes)>;

  // True: the call's work is on the stream. False: nothing was launched, cuDNN does not take it.
  bool Forward(cudaStream_t stream, const AttentionArgs& args, const Allocate& allocate);
  bool Backward(cudaStream_t stream, const AttentionBackwardArgs& args, const Allocate& allocate);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moebius::cuda
