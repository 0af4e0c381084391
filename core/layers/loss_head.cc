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

// args: of the chunk, without `rows`.
void LossHead::RunChunk(const Context& context, const HeadArgs& args, TensorView logits,
                        TensorView dlogits) const {
  Logits(context, args.x, logits);
  CrossEntropy(context, {.logits = logits,
                         .targets = args.targets,
                         .losses = args.losses,
                         .scale = args.scale,
                         .weights = args.weights,
                         .inverse_temperature = args.inverse_temperature,
                         .entropies = args.entropies,
                         .entropy_scale = args.entropy_scale,
                         .dlogits = dlogits});
  if (!dlogits) return;
  MatMul(context, {.a = dlogits, .b = weight_->weight(), .c = args.dx});
  MatMul(
      context,
      {.a = dlogits, .b = args.x, .c = weight_->grad(), .transpose_a = Transpose::kYes, .accumulate = true});
}

void LossHead::Run(const Context& context, const HeadArgs& args) const {
  const int64_t predictions = args.targets.elements(), hidden = args.x.cols(), vocab = vocab_size();
  const int64_t fitting = context.backend.piece_bytes() / (4 * vocab) / kMinChunk * kMinChunk;
  const int64_t chunk = std::min(predictions, std::max(kMinChunk, fitting));
  const DType act = args.x.dtype;
  const bool backward = static_cast<bool>(args.dx), gathers = static_cast<bool>(args.rows);
  ArenaScope scope(context.scratch);
  const TensorView logits = context.scratch.New(DType::kF32, {chunk, vocab});
  const TensorView dlogits =
      !backward || act == DType::kF32 ? logits : context.scratch.New(act, {chunk, vocab});
  const TensorView x = gathers ? context.scratch.New(act, {chunk, hidden}) : TensorView();
  const TensorView dx = gathers && backward ? context.scratch.New(act, {predictions, hidden}) : args.dx;
  for (int64_t begin = 0; begin < predictions; begin += chunk) {
    const int64_t n = std::min(chunk, predictions - begin);
    const auto part = [&](TensorView v) { return v ? v.Rows(begin, n) : v; };
    if (gathers) GatherRows(context, {.x = args.x, .index = part(args.rows), .out = x.Rows(0, n)});
    HeadArgs of_chunk = args;
    of_chunk.x = gathers ? x.Rows(0, n) : part(args.x);
    of_chunk.targets = part(args.targets);
    of_chunk.losses = part(args.losses);
    of_chunk.weights = part(args.weights);
    of_chunk.entropies = part(args.entropies);
    of_chunk.dx = part(dx);
    RunChunk(context, of_chunk, logits.Rows(0, n), backward ? dlogits.Rows(0, n) : TensorView());
  }
  if (!gathers || !backward) return;
  // Several predictions may come from one row: the first tokens of answers to a shared prompt.
  const TensorView sums = context.scratch.New(DType::kF32, args.x.shape);
  Zero(context, sums);
  EmbeddingBackward(context, {.ids = args.rows, .dy = dx, .dtable = sums});
  Cast(context, sums, args.dx);
}

}  // namespace moebius
