// Tokens from logits; a task draws one.
#include "core/backend/draw.h"

#include "core/backend/cpu/cpu_backend.h"

namespace moebius {

void CpuBackend::DrawTokens(Stream&, const DrawTokensArgs& args) {
  const int64_t vocab = args.logits.cols();
  const auto at = [](const TensorView& view, int64_t i) -> float& {
    return static_cast<float*>(view.data)[i];
  };
  const size_t size = static_cast<size_t>(vocab);
  pool_.Run(args.tokens.elements(), [&](int64_t i, int thread) {
    float* weights = static_cast<float*>(ThreadScratch(thread, vocab * SizeOf(DType::kF32)));
    const float* row = args.logits.as<float>() + args.rows.as<int32_t>()[i] * args.logits.stride;
    const DrawnToken token = DrawToken({row, size}, at(args.scales, i), args.uniforms.as<double>()[i],
                                       args.logprobs ? LogProbs::kYes : LogProbs::kNo, {weights, size});
    args.tokens.as<int32_t>()[i] = token.id;
    if (!args.logprobs) return;
    at(args.logprobs, i) = token.logprob;
    at(args.sampling_logprobs, i) = token.sampling_logprob;
  });
}

}  // namespace moebius
