// Our own attention kernels: fp32 arithmetic for any shape and stride, for fp32 operands and for what cuDNN
// does not take. No matrix of [tokens, tokens] is held, and no atomics are used.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/backend/kernel_args.h"

namespace moebius::cuda {

// Bytes of device memory that one call needs, valid until its launches are done.
int64_t OwnAttentionScratch(const AttentionArgs& args);
int64_t OwnAttentionBackwardScratch(const AttentionBackwardArgs& args);

// `scratch` is 256-byte aligned.
void OwnAttention(cudaStream_t stream, const AttentionArgs& args, void* scratch);
void OwnAttentionBackward(cudaStream_t stream, const AttentionBackwardArgs& args, void* scratch);

}  // namespace moebius::cuda
