#include "core/layers/loss_head.h"

#include <algorithm>

#include "core/backend/ops.h"

namespace moebius {
namespace {

// Smaller ones make the product dlogitsᵀ · x (whose depth is a chunk) inefficient, and re-read dW often.
constexpr int64_t kMinChunk = 64;

}  // namespace

void LossHead::Logits(const Context& context, TensorView x, TensorView logits) const {
  MatMul(context, {.a = x, .b = weight_->weight(), .c = logits, .transpose_b = Transpose::kYes});
}

void LossHead::Run(const Context& context, const HeadArgs& args) const {
  const int64_t tokens = args.x.rows(), vocab = vocab_size();
  const int64_t fitting = context.backend.piece_bytes() / (4 * vocab) / kMinChunk * kMinChunk;
  const int64_t chunk = std::min(tokens, std::max(kMinChunk, fitting));
  ArenaScope scope(context.scratch);
  const TensorView logits = context.scratch.New(DType::kF32, {chunk, vocab});
  const bool backward = static_cast<bool>(args.dx);
  const TensorView dlogits =
      !backward || args.x.dtype == DType::kF32 ? logits : context.scratch.New(args.x.dtype, {chunk, vocab});
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t n = std::min(chunk, tokens - begin);
    const TensorView x = args.x.Rows(begin, n);
    Logits(context, x, logits.Rows(0, n));
    CrossEntropy(context, {.logits = logits.Rows(0, n),
                           .targets = args.targets.Rows(begin, n),
                           .losses = args.losses.Rows(begin, n),
                           .scale = args.scale,
                           .dlogits = backward ? dlogits.Rows(0, n) : TensorView()});
    if (!backward) continue;
    MatMul(context, {.a = dlogits.Rows(0, n), .b = weight_->weight(), .c = args.dx.Rows(begin, n)});
    MatMul(context, {.a = dlogits.Rows(0, n),
                     .b = x,
                     .c = weight_->grad(),
                     .transpose_a = Transpose::kYes,
                     .accumulate = true});
  }
}

}  // namespace moebius
