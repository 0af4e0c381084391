#include "core/layers/block.h"

#include "core/backend/ops.h"

namespace moebius {

Block::Block(SlotCounter& slots, Parameter* norm1, Parameter* norm2, float epsilon,
             std::unique_ptr<Layer> attention, std::unique_ptr<SwiGluMlp> dense, std::unique_ptr<MoeMlp> moe)
    : norm1_(slots, norm1, epsilon),
      norm2_(slots, norm2, epsilon),
      attention_(std::move(attention)),
      dense_(std::move(dense)),
      moe_(std::move(moe)),
      n1_(slots.Take()),
      n2_(slots.Take()),
      h_(slots.Take()),
      dn2_(slots.Take()) {
  CHECK_NE(dense_ == nullptr, moe_ == nullptr);
}

std::span<const Block::Segment> Block::ForwardSegments() const {
  static constexpr Segment kDense[] = {{SegmentKind::kCompute, "attention", &Block::AttentionForward},
                                       {SegmentKind::kCompute, "mlp", &Block::DenseForward}};
  static constexpr Segment kMoe[] = {{SegmentKind::kCompute, "attention", &Block::AttentionForward},
                                     {SegmentKind::kPost, "post dispatch", &Block::PostDispatch},
                                     {SegmentKind::kCompute, "shared expert", &Block::SharedForward},
                                     {SegmentKind::kWait, "experts", &Block::ExpertsForward},
                                     {SegmentKind::kPost, "post combine", &Block::PostCombine},
                                     {SegmentKind::kWait, "combine", &Block::WaitCombine}};
  return moe_ ? std::span<const Segment>(kMoe) : std::span<const Segment>(kDense);
}

std::span<const Block::Segment> Block::BackwardInputSegments() const {
  static constexpr Segment kDense[] = {{SegmentKind::kCompute, "mlp", &Block::DenseBackward},
                                       {SegmentKind::kCompute, "attention", &Block::AttentionBackward}};
  static constexpr Segment kMoe[] = {
      {SegmentKind::kPost, "post combine backward", &Block::PostCombineBackward},
      {SegmentKind::kCompute, "shared expert", &Block::SharedBackward},
      {SegmentKind::kWait, "experts", &Block::ExpertsBackward},
      {SegmentKind::kPost, "post dispatch backward", &Block::PostDispatchBackward},
      {SegmentKind::kWait, "dispatch backward", &Block::WaitDispatchBackward},
      {SegmentKind::kCompute, "attention", &Block::AttentionBackward}};
  return moe_ ? std::span<const Segment>(kMoe) : std::span<const Segment>(kDense);
}

std::span<const Block::Segment> Block::BackwardSegments() const {
  static constexpr Segment kDense[] = {{SegmentKind::kCompute, "mlp", &Block::DenseBackward},
                                       {SegmentKind::kCompute, "attention", &Block::AttentionBackward},
                                       {SegmentKind::kCompute, "weights", &Block::OtherWeights}};
  static constexpr Segment kMoe[] = {
      {SegmentKind::kPost, "post combine backward", &Block::PostCombineBackward},
      {SegmentKind::kCompute, "shared expert", &Block::SharedBackward},
      {SegmentKind::kWait, "experts", &Block::ExpertsBackward},
      {SegmentKind::kPost, "post dispatch backward", &Block::PostDispatchBackward},
      {SegmentKind::kCompute, "expert weights", &Block::ExpertWeights},
      {SegmentKind::kWait, "dispatch backward", &Block::WaitDispatchBackward},
      {SegmentKind::kCompute, "attention", &Block::AttentionBackward},
      {SegmentKind::kCompute, "weights", &Block::OtherWeights}};
  return moe_ ? std::span<const Segment>(kMoe) : std::span<const Segment>(kDense);
}

void Block::Forward(const Pass& pass, TensorView x, TensorView y) const {
  for (const Segment& segment : ForwardSegments()) (this->*segment.run)(pass, x, y);
}

void Block::BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const {
  for (const Segment& segment : BackwardInputSegments()) (this->*segment.run)(pass, dy, dx);
}

void Block::BackwardWeight(const Pass& pass) const {
  if (moe_) moe_->ExpertWeights(pass);
  OtherWeights(pass, {}, {});
}

void Block::ExpertWeights(const Pass& pass, TensorView, TensorView) const { moe_->ExpertWeights(pass); }

void Block::OtherWeights(const Pass& pass, TensorView, TensorView) const {
  dense_ ? dense_->BackwardWeight(pass) : moe_->OtherWeights(pass);
  norm2_.BackwardWeight(pass);
  attention_->BackwardWeight(pass);
  norm1_.BackwardWeight(pass);
}

Arena& Block::NormMemory(const Pass& pass) const {
  return pass.recompute.norms ? pass.saved.transient() : pass.saved.activations();
}

void Block::AttentionForward(const Pass& pass, TensorView x, TensorView) const {
  const TensorView n1 = pass.saved[n1_] = NormMemory(pass).New(x.dtype, x.shape);
  const TensorView n2 = pass.saved[n2_] = NormMemory(pass).New(x.dtype, x.shape);
  const TensorView h = pass.Keep(h_, x.dtype, x.shape);
  norm1_.Forward(pass, x, n1);
  ArenaScope scope(pass.context.scratch);
  const TensorView a = pass.context.scratch.New(x.dtype, x.shape);
  attention_->Forward(pass, n1, a);
  norm2_.ForwardAdd(pass, x, a, h, n2);
  if (moe_) moe_->Route(pass, n2);
}

void Block::DenseForward(const Pass& pass, TensorView, TensorView y) const {
  dense_->Forward(pass, pass.saved[n2_], y);
  Accumulate(pass.context, {.x = pass.saved[h_], .y = y});
  pass.saved.transient().Reset();
}

void Block::PostDispatch(const Pass& pass, TensorView, TensorView) const { moe_->PostDispatch(pass); }
void Block::SharedForward(const Pass& pass, TensorView, TensorView y) const { moe_->SharedExpert(pass, y); }
void Block::ExpertsForward(const Pass& pass, TensorView, TensorView) const { moe_->Experts(pass); }
void Block::PostCombine(const Pass& pass, TensorView, TensorView) const { moe_->PostCombine(pass); }

void Block::WaitCombine(const Pass& pass, TensorView, TensorView y) const {
  const TensorView h = pass.saved[h_];
  moe_->WaitCombine(pass, moe_->has_shared() ? y : h, y);
  if (moe_->has_shared()) Accumulate(pass.context, {.x = h, .y = y});
  pass.saved.transient().Reset();
}

void Block::DenseBackward(const Pass& pass, TensorView dy, TensorView) const {
  const TensorView dn2 = pass.saved[dn2_] = pass.saved.transient().New(dy.dtype, dy.shape);
  dense_->BackwardInput(pass, dy, dn2);
}

void Block::PostCombineBackward(const Pass& pass, TensorView dy, TensorView) const {
  pass.saved[dn2_] = pass.saved.transient().New(dy.dtype, dy.shape);
  moe_->PostCombineBackward(pass, dy);
}
void Block::SharedBackward(const Pass& pass, TensorView dy, TensorView) const {
  moe_->SharedExpertBackward(pass, dy, pass.saved[dn2_]);
}
void Block::ExpertsBackward(const Pass& pass, TensorView, TensorView) const { moe_->ExpertsBackward(pass); }
void Block::PostDispatchBackward(const Pass& pass, TensorView, TensorView) const {
  moe_->PostDispatchBackward(pass);
}
void Block::WaitDispatchBackward(const Pass& pass, TensorView, TensorView) const {
  const TensorView dn2 = pass.saved[dn2_];
  moe_->WaitDispatchBackward(pass, moe_->has_shared() ? dn2 : TensorView(), dn2);
}

void Block::AttentionBackward(const Pass& pass, TensorView dy, TensorView dx) const {
  if (pass.recompute.norms) {
    // Both norms' outputs are inputs of weight phases to come.
    const TensorView n2 = pass.KeepGradient(n2_, dy.dtype, dy.shape);
    norm2_.Recompute(pass, n2);
    dense_ ? dense_->SetInput(pass, n2) : moe_->SetInput(pass, n2);
    const TensorView n1 = pass.KeepGradient(n1_, dy.dtype, dy.shape);
    norm1_.Recompute(pass, n1);
    attention_->SetInput(pass, n1);
  }
  // dh = dy + d(mlp): the residual joins inside the norm's backward. The attention's weight phase needs it.
  const TensorView dh = pass.saved.gradients().New(dy.dtype, dy.shape);
  norm2_.BackwardInputAdd(pass, pass.saved[dn2_], dy, dh);
  ArenaScope scope(pass.context.scratch);
  const TensorView dn1 = pass.context.scratch.New(dy.dtype, dy.shape);
  attention_->BackwardInput(pass, dh, dn1);
  norm1_.BackwardInputAdd(pass, dn1, dh, dx);
  pass.saved.transient().Reset();
}

}  // namespace moebius
