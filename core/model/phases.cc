// The phases of a model as lists of steps (model.h).
#include <utility>

#include "core/backend/ops.h"
#include "core/model/model.h"

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

Pass PassOf(const Context& context, const Objective& objective, const TokenLayout& layout, Microbatch& mb) {
  return {context,
          layout,
          mb.saved,
          objective.recompute,
          mb.balances ? objective.balance : BalanceFactors(),
          objective.rounding};
}

int64_t LengthOf(const TokenLayout& layout) { return layout.tokens() / layout.sequences(); }

}  // namespace

void RunPhase(const Phase& phase) {
  for (const PhaseStep& step : phase) step.run();
}

Phase Model::ForwardPhase(const Context& context, const Objective& objective, Microbatch& mb) const {
  const Pass pass = PassOf(context, objective, mb.layout, mb);
  Phase phase;
  phase.push_back({SegmentKind::kCompute, "embedding", [=, this, &mb] { StartForward(pass, mb); }});
  for (const auto& owned : blocks_) {
    const Block& block = *owned;
    const auto segments = block.ForwardSegments();
    for (const Block::Segment& segment : segments) {
      const bool first = &segment == &segments.front(), last = &segment == &segments.back();
      phase.push_back({segment.kind, segment.name, [=, this, &mb, &block, run = segment.run] {
                         if (first) StartBlock(pass, mb);
                         (block.*run)(pass, mb.cursor.in, mb.cursor.out);
                         if (last) EndBlock(pass, block, mb);
                       }});
    }
  }
  phase.push_back({SegmentKind::kCompute, "head", [=, this, &mb] { EndForward(pass, objective, mb); }});
  if (head_ && objective.mtp_scale != 0) {
    phase.push_back(
        {SegmentKind::kCompute, "mtp", [=, this, &context, &mb] { ForwardMtp(context, objective, mb); }});
  }
  return phase;
}

void Model::StartForward(const Pass& pass, Microbatch& mb) const {
  mb.block_inputs.clear();
  mb.records.clear();
  StartRouting(pass, mb);
  if (!embedding_) return;  // the input is there
  mb.hidden = mb.saved.activations().New(options_.storage.act, {mb.tokens(), config_.hidden_size});
  embedding_->Forward(pass, mb.ids, mb.hidden);
}

void Model::StartRouting(const Pass& pass, Microbatch& mb) const {
  const int64_t layers = std::ssize(moe_layers());
  if (layers == 0) return;
  const int64_t words = RoutingRecord::Words(config_.n_routed_experts, mb.layout.sequences());
  mb.record_words = mb.saved.activations().New(DType::kI64, {layers, words});
  Zero(pass.context, mb.record_words);
}

void Model::RecordRouting(const Pass& pass, const Block& block, Microbatch& mb) const {
  if (block.moe() == nullptr) return;
  mb.records.push_back(block.moe()->Record(pass, mb.record_words.Index(std::ssize(mb.records))));
}

void Model::StartBlock(const Pass& pass, Microbatch& mb) const {
  Microbatch::Cursor& cursor = mb.cursor;
  cursor.in = mb.hidden;
  cursor.out = pass.saved.activations().New(options_.storage.act, {mb.tokens(), config_.hidden_size});
  cursor.activations = pass.saved.activations().mark();
  mb.block_inputs.push_back(cursor.in);
}

void Model::EndBlock(const Pass& pass, const Block& block, Microbatch& mb) const {
  RecordRouting(pass, block, mb);
  if (pass.recompute.blocks) {
    block.Forget(pass);
    pass.saved.activations().Release(mb.cursor.activations);
  }
  mb.hidden = mb.cursor.out;
}

void Model::EndForward(const Pass& pass, const Objective& objective, Microbatch& mb) const {
  if (!head_) return;
  Arena& kept = mb.saved.activations();
  const DType act = options_.storage.act;
  const Shape shape{mb.tokens(), config_.hidden_size};
  const TensorView x = std::exchange(mb.hidden, kept.New(act, shape));
  final_norm_->Forward(pass, x, mb.hidden);
  if (!objective.predicts) return;
  mb.losses = kept.New(DType::kF32, {mb.predictions()});
  mb.entropies = objective.entropies ? kept.New(DType::kF32, {mb.predictions()}) : TensorView();
  mb.d_hidden = objective.gradients ? mb.saved.gradients().New(act, shape) : TensorView();
  HeadArgs args{.x = mb.hidden,
                .rows = mb.prediction_rows,
                .targets = mb.targets,
                .losses = mb.losses,
                .scale = objective.token_scale,
                .inverse_temperature = objective.inverse_temperature,
                .entropies = mb.entropies,
                .entropy_scale = objective.entropy_scale};
  if (mb.teach != nullptr) {
    args.teacher = mb.teach();
    args.divergences = mb.divergences = kept.New(DType::kF32, {mb.predictions()});
    args.agreements = mb.agreements = kept.New(DType::kF32, {mb.predictions()});
  }
  if (mb.weigh != nullptr && objective.gradients) {
    head_->Run(pass.context, args);
    const Context& context = pass.context;
    std::vector<float> weights(mb.predictions());
    mb.weigh(ToHost(context.backend, context.stream, mb.losses), weights);
    mb.PutWeights(context.stream, weights);
  }
  args.weights = mb.weights;
  args.dx = mb.d_hidden;
  head_->Run(pass.context, args);
}

void Model::ForwardMtp(const Context& context, const Objective& objective, Microbatch& mb) const {
  Arena& kept = mb.saved.activations();
  const DType act = options_.storage.act;
  CHECK_EQ(mb.depths.size(), mtp_.size());
  TensorView previous = mb.hidden;
  int64_t length = LengthOf(mb.layout);
  for (size_t k = 0; k < mtp_.size(); ++k) {
    Microbatch::Depth& depth = mb.depths[k];
    Pass pass = PassOf(context, objective, depth.layout, mb);
    pass.recompute.blocks = false;  // one block a depth: not worth a second pass
    const int64_t count = LengthOf(depth.layout);
    const Shape shape{depth.layout.tokens(), config_.hidden_size};
    const TensorView hidden = kept.New(act, shape);
    const TensorView embedded = kept.New(act, shape);
    depth.output = kept.New(act, shape);
    KeepHeads(context, previous, length, hidden, count);
    mtp_embeddings_[k]->Forward(pass, depth.ids, embedded);
    mtp_[k]->Forward(pass, hidden, embedded, depth.output);
    RecordRouting(pass, mtp_[k]->block(), mb);
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

Phase Model::BackwardPhase(const Context& context, const Objective& objective, Microbatch& mb,
                           Weights weights) const {
  const Pass pass = PassOf(context, objective, mb.layout, mb);
  const bool now = weights == Weights::kNow;
  Phase phase;
  if (head_ && objective.mtp_scale != 0) {
    phase.push_back({SegmentKind::kCompute, "mtp",
                     [=, this, &context, &mb] { BackwardMtp(context, objective, mb, weights); }});
  }
  phase.push_back(
      {SegmentKind::kCompute, "final norm", [=, this, &mb] { StartBackward(pass, weights, mb); }});
  for (size_t b = blocks_.size(); b-- > 0;) {
    const Block& block = *blocks_[b];
    const auto segments = now ? block.BackwardSegments() : block.BackwardInputSegments();
    for (const Block::Segment& segment : segments) {
      const bool first = &segment == &segments.front(), last = &segment == &segments.back();
      phase.push_back({segment.kind, segment.name, [=, this, &mb, &block, run = segment.run] {
                         if (first) StartBlockBackward(pass, b, weights, mb);
                         (block.*run)(pass, mb.cursor.in, mb.cursor.out);
                         if (last) EndBlockBackward(pass, block, weights, mb);
                       }});
    }
    if (!now) continue;
    phase.back().first_complete = first_parameter_[b];
    phase.back().last_complete = first_parameter_[b + 1];
  }
  phase.push_back({SegmentKind::kCompute, "embedding", [=, this, &mb] { EndBackward(pass, weights, mb); }});
  return phase;
}

void Model::StartBackward(const Pass& pass, Weights weights, Microbatch& mb) const {
  Arena& gradients = mb.saved.gradients();
  const DType act = options_.storage.act;
  const Shape shape{mb.tokens(), config_.hidden_size};
  // Two buffers take turns as dy and dx, outside the marks that free what W needed; W later needs them all.
  mb.cursor.in = mb.d_hidden;
  mb.cursor.spare = weights == Weights::kNow ? gradients.New(act, shape) : TensorView();
  if (!final_norm_) return;
  const TensorView dx = gradients.New(act, shape);
  final_norm_->BackwardInput(pass, mb.d_hidden, dx);
  if (weights == Weights::kNow) final_norm_->BackwardWeight(pass);
  mb.cursor.in = dx;
}

void Model::StartBlockBackward(const Pass& pass, size_t block, Weights weights, Microbatch& mb) const {
  Microbatch::Cursor& cursor = mb.cursor;
  const DType act = options_.storage.act;
  const Shape shape{mb.tokens(), config_.hidden_size};
  cursor.activations = pass.saved.activations().mark();
  cursor.gradients = pass.saved.gradients().mark();
  if (pass.recompute.blocks) {
    ArenaScope scope(pass.context.scratch);
    blocks_[block]->Forward(pass, mb.block_inputs[block], pass.context.scratch.New(act, shape));
  }
  cursor.out = weights == Weights::kNow ? cursor.spare : pass.saved.gradients().New(act, shape);
}

void Model::EndBlockBackward(const Pass& pass, const Block& block, Weights weights, Microbatch& mb) const {
  Microbatch::Cursor& cursor = mb.cursor;
  cursor.spare = std::exchange(cursor.in, cursor.out);
  if (weights == Weights::kLater) return;
  block.Forget(pass);
  pass.saved.gradients().Release(cursor.gradients);
  pass.saved.activations().Release(cursor.activations);
}

void Model::EndBackward(const Pass& pass, Weights weights, Microbatch& mb) const {
  mb.d_hidden = mb.cursor.in;
  if (!embedding_) return;
  embedding_->SetGradient(pass, mb.d_hidden);
  if (weights == Weights::kNow) embedding_->BackwardWeight(pass);
}

void Model::BackwardMtp(const Context& context, const Objective& objective, Microbatch& mb,
                        Weights weights) const {
  const DType act = options_.storage.act;
  for (size_t k = mtp_.size(); k-- > 0;) {
    Microbatch::Depth& depth = mb.depths[k];
    const Pass pass = PassOf(context, objective, depth.layout, mb);
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
    if (weights == Weights::kLater) continue;
    mtp_[k]->BackwardWeight(pass);
    mtp_embeddings_[k]->BackwardWeight(pass);
    mb.saved.gradients().Release(mark);
  }
}

Phase Model::WeightPhase(const Context& context, const Objective& objective, Microbatch& mb) const {
  const Pass pass = PassOf(context, objective, mb.layout, mb);
  Phase phase;
  phase.push_back({SegmentKind::kCompute, "head", [=, this, &context, &mb] {
                     for (size_t k = objective.mtp_scale != 0 ? mtp_.size() : 0; k-- > 0;) {
                       const Pass deep = PassOf(context, objective, mb.depths[k].layout, mb);
                       mtp_[k]->BackwardWeight(deep);
                       mtp_embeddings_[k]->BackwardWeight(deep);
                     }
                     if (final_norm_) final_norm_->BackwardWeight(pass);
                   }});
  for (size_t b = blocks_.size(); b-- > 0;) {
    phase.push_back({SegmentKind::kCompute, "weights",
                     [=, this] {
                       blocks_[b]->BackwardWeight(pass);
                       blocks_[b]->Forget(pass);
                     },
                     first_parameter_[b], first_parameter_[b + 1]});
  }
  phase.push_back({SegmentKind::kCompute, "embedding", [=, this] {
                     if (embedding_) embedding_->BackwardWeight(pass);
                   }});
  return phase;
}

}  // namespace moebius
