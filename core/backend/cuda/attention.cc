// Attention takes cuDNN's way where that is open, and our own kernels' otherwise.
#include "core/backend/cuda/attention_fallback.h"
#include "core/backend/cuda/attention_plans.h"
#include "core/backend/cuda/cuda_backend.h"

namespace moebius {

void CudaBackend::Attention(Stream& stream, const AttentionArgs& args) {
  const cudaStream_t raw = cuda::Raw(stream);
  if (attention_->Forward(raw, args, [this](int64_t bytes) { return Scratch(bytes); })) return;
  cuda::OwnAttention(raw, args, Scratch(cuda::OwnAttentionScratch(args)));
}

void CudaBackend::AttentionBackward(Stream& stream, const AttentionBackwardArgs& args) {
  const cudaStream_t raw = cuda::Raw(stream);
  if (attention_->Backward(raw, args, [this](int64_t bytes) { return Scratch(bytes); })) return;
  cuda::OwnAttentionBackward(raw, args, Scratch(cuda::OwnAttentionBackwardScratch(args)));
}

}  // namespace moebius
