#include "core/layers/mtp_module.h"

#include "core/backend/ops.h"

namespace moebius {

MtpModule::MtpModule(SlotCounter& slots, const MtpParameters& p, float epsilon, std::unique_ptr<Block> block)
    : embedding_norm_(slots, p.embedding_norm, epsilon),
      hidden_norm_(slots, p.hidden_norm, epsilon),
      output_norm_(slots, p.output_norm, epsilon),
      projection_(slots, p.projection),
      block_(std::move(block)) {}

void MtpModule::Forward(const Pass& pass, TensorView hidden, TensorView embedding, TensorView output) const {
  const int64_t tokens = hidden.rows(), width = hidden.cols();
  Arena& kept = pass.saved.activations();
  const TensorView joined = kept.New(hidden.dtype, {tokens, 2 * width});
  embedding_norm_.Forward(pass, embedding, joined.Columns(0, width));
  hidden_norm_.Forward(pass, hidden, joined.Columns(width, width));
  const TensorView x = kept.New(hidden.dtype, hidden.shape);
  projection_.Forward(pass, joined, x);
  const TensorView y = kept.New(hidden.dtype, hidden.shape);
  block_->Forward(pass, x, y);
  output_norm_.Forward(pass, y, output);
}

void MtpModule::BackwardInput(const Pass& pass, TensorView d_output, TensorView d_hidden,
                              TensorView d_embedding) const {
  const int64_t tokens = d_output.rows(), width = d_output.cols();
  Arena& gradients = pass.saved.gradients();
  const TensorView dy = gradients.New(d_output.dtype, d_output.shape);
  output_norm_.BackwardInput(pass, d_output, dy);
  const TensorView dx = gradients.New(d_output.dtype, d_output.shape);
  block_->BackwardInput(pass, dy, dx);
  ArenaScope scope(pass.context.scratch);
  const TensorView d_joined = pass.context.scratch.New(d_output.dtype, {tokens, 2 * width});
  projection_.BackwardInput(pass, dx, d_joined);
  embedding_norm_.BackwardInput(pass, d_joined.Columns(0, width), d_embedding);
  hidden_norm_.BackwardInput(pass, d_joined.Columns(width, width), d_hidden);
}

void MtpModule::BackwardWeight(const Pass& pass) const {
  output_norm_.BackwardWeight(pass);
  block_->BackwardWeight(pass);
  projection_.BackwardWeight(pass);
  embedding_norm_.BackwardWeight(pass);
  hidden_norm_.BackwardWeight(pass);
}

}  // namespace moebius
