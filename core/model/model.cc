#include "core/model/model.h"

#include "core/backend/ops.h"
#include "core/base/strings.h"
#include "core/model/builder.h"

namespace moebius {
namespace {

// Rows [0, count) of every sequence: from `x` of sequences of length `length` to `out` of length `count`.
void KeepHeads(const Context& context, TensorView x, int64_t length, TensorView out, int64_t count) {
  for (int64_t s = 0; count > 0 && s < out.rows() / count; ++s) {
    Cast(context, x.Rows(s * length, count), out.Rows(s * count, count));
  }
}

// The backward of KeepHeads: dx += .
void AddHeads(const Context& context, TensorView d_out, int64_t count, TensorView dx, int64_t length) {
  for (int64_t s = 0; count > 0 && s < d_out.rows() / count; ++s) {
    Accumulate(context, {.x = d_out.Rows(s * count, count), .y = dx.Rows(s * length, count)});
  }
}

int64_t LengthOf(const TokenLayout& layout) { return layout.tokens() / layout.sequences(); }

}  // namespace

Model::Model(const ModelConfig& config, Backend& backend, Stream& stream, const ModelOptions& options)
    : config_(config), options_(options) {
  ModelBuilder(*this).Build();
  if (!options.allocate) return;
  const int64_t positions =
      options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
  rotary_ =
      MakeRotaryTable(backend, stream, positions, config.rope_dim(), config.rope_theta, config.rope_scaling,
                      config.attention == AttentionKind::kMla ? RopeStyle::kInterleaved : RopeStyle::kHalf);
  parameters_.Allocate(backend, stream, options.storage);
}

std::vector<PieceAlias> Model::aliases() const {
  std::vector<PieceAlias> out;
  for (size_t k = 0; k < mtp_.size(); ++k) {
    const std::string prefix =
        Concat("model.layers.", config_.num_hidden_layers + static_cast<int64_t>(k), ".");
    out.push_back({prefix + "embed_tokens.weight", "model.embed_tokens.weight"});
    out.push_back({prefix + "shared_head.head.weight",
                   config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"});
  }
  return out;
}

std::vector<const MoeMlp*> Model::moe_layers() const {
  std::vector<const MoeMlp*> out;
  for (const auto& block : blocks_) {
    if (block->moe() != nullptr) out.push_back(block->moe());
  }
  for (const auto& module : mtp_) {
    if (module->block().moe() != nullptr) out.push_back(module->block().moe());
  }
  return out;
}

void Model::RunBlock(const Pass& pass, const Block& block, TensorView x, TensorView y, Microbatch& mb) const {
  Arena& activations = mb.saved.activations();
  const Arena::Mark mark = activations.mark();
  block.Forward(pass, x, y);
  if (block.moe() != nullptr) mb.routing.push_back(block.moe()->ReadStatistics(pass));
  if (pass.recompute.blocks) activations.Release(mark);
}

void Model::Forward(const Context& context, const Objective& objective, Microbatch& mb) const {
  const Pass pass{context, mb.layout, mb.saved, objective.recompute, objective.balance};
  Arena& kept = mb.saved.activations();
  const DType act = options_.storage.act;
  const Shape shape{mb.tokens(), config_.hidden_size};
  mb.routing.clear();
  mb.block_inputs.clear();
  TensorView x = mb.hidden;  // a stage without embedding receives it
  if (embedding_) {
    x = kept.New(act, shape);
    embedding_->Forward(pass, mb.ids, x);
  }
  for (const auto& block : blocks_) {
    const TensorView y = kept.New(act, shape);
    mb.block_inputs.push_back(x);
    RunBlock(pass, *block, x, y, mb);
    x = y;
  }
  mb.hidden = x;
  if (!head_) return;
  mb.hidden = kept.New(act, shape);
  final_norm_->Forward(pass, x, mb.hidden);
  mb.losses = kept.New(DType::kF32, {mb.tokens()});
  mb.d_hidden = objective.gradients ? mb.saved.gradients().New(act, shape) : TensorView();
  head_->Run(context, {.x = mb.hidden,
                       .targets = mb.targets,
                       .losses = mb.losses,
                       .scale = objective.token_scale,
                       .dx = mb.d_hidden});
  if (objective.mtp_scale != 0) ForwardMtp(context, objective, mb);
}

void Model::ForwardMtp(const Context& context, const Objective& objective, Microbatch& mb) const {
  Arena& kept = mb.saved.activations();
  const DType act = options_.storage.act;
  CHECK_EQ(mb.depths.size(), mtp_.size());
  TensorView previous = mb.hidden;
  int64_t length = LengthOf(mb.layout);
  RecomputePolicy recompute = objective.recompute;
  recompute.blocks = false;  // one block a depth: not worth a second pass
  for (size_t k = 0; k < mtp_.size(); ++k) {
    Microbatch::Depth& depth = mb.depths[k];
    const Pass pass{context, depth.layout, mb.saved, recompute, objective.balance};
    const int64_t count = LengthOf(depth.layout);
    const Shape shape{depth.layout.tokens(), config_.hidden_size};
    const TensorView hidden = kept.New(act, shape);
    const TensorView embedded = kept.New(act, shape);
    depth.output = kept.New(act, shape);
    KeepHeads(context, previous, length, hidden, count);
    mtp_embeddings_[k]->Forward(pass, depth.ids, embedded);
    mtp_[k]->Forward(pass, hidden, embedded, depth.output);
    if (mtp_[k]->block().moe() != nullptr) mb.routing.push_back(mtp_[k]->block().moe()->ReadStatistics(pass));
    depth.losses = kept.New(DType::kF32, {shape[0]});
    depth.d_output = objective.gradients ? mb.saved.gradients().New(act, shape) : TensorView();
    head_->Run(context, {.x = depth.output,
                         .targets = depth.targets,
                         .losses = depth.losses,
                         .scale = objective.mtp_scale,
                         .dx = depth.d_output});
    previous = depth.output;
    length = count;
  }
}

void Model::BackwardMtp(const Context& context, const Objective& objective, Microbatch& mb,
                        WeightPhase weights) const {
  const DType act = options_.storage.act;
  for (size_t k = mtp_.size(); k-- > 0;) {
    Microbatch::Depth& depth = mb.depths[k];
    const Pass pass{context, depth.layout, mb.saved, objective.recompute, objective.balance};
    const Shape shape{depth.layout.tokens(), config_.hidden_size};
    const Arena::Mark mark = mb.saved.gradients().mark();
    const TensorView d_embedding = mb.saved.gradients().New(act, shape);
    {
      ArenaScope scope(context.scratch);
      const TensorView d_hidden = context.scratch.New(act, shape);
      mtp_[k]->BackwardInput(pass, depth.d_output, d_hidden, d_embedding);
      const TensorView d_previous = k > 0 ? mb.depths[k - 1].d_output : mb.d_hidden;
      const int64_t length = LengthOf(k > 0 ? mb.depths[k - 1].layout : mb.layout);
      AddHeads(context, d_hidden, LengthOf(depth.layout), d_previous, length);
    }
    mtp_embeddings_[k]->SetGradient(pass, d_embedding);
    if (weights == WeightPhase::kLater) continue;
    mtp_[k]->BackwardWeight(pass);
    mtp_embeddings_[k]->BackwardWeight(pass);
    mb.saved.gradients().Release(mark);
  }
}

void Model::BackwardInput(const Context& context, const Objective& objective, Microbatch& mb,
                          WeightPhase weights) const {
  const Pass pass{context, mb.layout, mb.saved, objective.recompute, objective.balance};
  const DType act = options_.storage.act;
  const Shape shape{mb.tokens(), config_.hidden_size};
  Arena& gradients = mb.saved.gradients();
  Arena& activations = mb.saved.activations();
  if (objective.mtp_scale != 0) BackwardMtp(context, objective, mb, weights);
  // Two buffers take turns as dy and dx, outside the marks that free what W needed; W later needs them all.
  const bool now = weights == WeightPhase::kNow;
  TensorView dy = mb.d_hidden;
  TensorView spare = now ? gradients.New(act, shape) : TensorView();
  if (final_norm_) {
    const TensorView dx = gradients.New(act, shape);
    final_norm_->BackwardInput(pass, dy, dx);
    if (now) final_norm_->BackwardWeight(pass);
    dy = dx;
  }
  for (size_t b = blocks_.size(); b-- > 0;) {
    const Arena::Mark kept = activations.mark(), mark = gradients.mark();
    if (objective.recompute.blocks) {
      ArenaScope scope(context.scratch);
      blocks_[b]->Forward(pass, mb.block_inputs[b], context.scratch.New(act, shape));
    }
    const TensorView dx = now ? spare : gradients.New(act, shape);
    blocks_[b]->BackwardInput(pass, dy, dx);
    if (now) {
      blocks_[b]->BackwardWeight(pass);
      gradients.Release(mark);
      activations.Release(kept);
      spare = dy;
    }
    dy = dx;
  }
  mb.d_hidden = dy;
  if (!embedding_) return;
  embedding_->SetGradient(pass, dy);
  if (now) embedding_->BackwardWeight(pass);
}

void Model::BackwardWeight(const Context& context, const Objective& objective, Microbatch& mb) const {
  if (objective.mtp_scale != 0) {
    for (size_t k = mtp_.size(); k-- > 0;) {
      const Pass pass{context, mb.depths[k].layout, mb.saved, objective.recompute, objective.balance};
      mtp_[k]->BackwardWeight(pass);
      mtp_embeddings_[k]->BackwardWeight(pass);
    }
  }
  const Pass pass{context, mb.layout, mb.saved, objective.recompute, objective.balance};
  if (final_norm_) final_norm_->BackwardWeight(pass);
  for (size_t b = blocks_.size(); b-- > 0;) blocks_[b]->BackwardWeight(pass);
  if (embedding_) embedding_->BackwardWeight(pass);
}

}  // namespace moebius
