#include "core/layers/gqa_attention.h"

#include <utility>

#include "core/backend/ops.h"
#include "core/layers/shared_prompts.h"

namespace moebius {

GqaAttention::GqaAttention(SlotCounter& slots, const GqaShape& shape, const GqaParameters& p,
                           const RotaryTable* rotary)
    : shape_(shape),
      parameters_(p),
      rotary_(rotary),
      q_(slots, p.q, p.q_bias),
      k_(slots, p.k, p.k_bias),
      v_(slots, p.v, p.v_bias),
      o_(slots, p.o),
      q_in_(slots.Take()),
      k_in_(slots.Take()),
      q_out_(slots.Take()),
      k_out_(slots.Take()),
      v_out_(slots.Take()),
      o_in_(slots.Take()),
      lse_(slots.Take()) {
  if (p.q_norm != nullptr) {
    q_norm_.emplace(slots, p.q_norm, shape.norm_epsilon);
    k_norm_.emplace(slots, p.k_norm, shape.norm_epsilon);
  }
}

void GqaAttention::SetInput(const Pass& pass, TensorView x) const {
  q_.SetInput(pass, x);
  k_.SetInput(pass, x);
  v_.SetInput(pass, x);
}

AttentionArgs GqaAttention::Scores(const Pass& pass, const Operands& x) const {
  const auto heads = [this](TensorView rows, int64_t count) {
    return rows.Reshape({rows.rows(), count, shape_.head_dim});
  };
  return {.q = heads(x.q, shape_.heads),
          .k = heads(x.k, shape_.kv_heads),
          .v = heads(x.v, shape_.kv_heads),
          .sequence_starts = pass.layout.attention_starts,
          .scale = shape_.scale,
          .o = heads(x.o, shape_.heads),
          .lse = pass.saved[lse_]};
}

GqaAttention::Operands GqaAttention::Kept(const Pass& pass) const {
  const auto flat = [&](int slot) {
    const TensorView x = pass.saved[slot];
    return x.Reshape({x.shape[0], x.elements() / x.shape[0]});
  };
  return {.q = flat(q_out_), .k = flat(k_out_), .v = flat(v_out_), .o = flat(o_in_)};
}

void GqaAttention::Forward(const Pass& pass, TensorView x, TensorView y) const {
  const GqaShape& s = shape_;
  const int64_t tokens = x.rows();
  const Shape q_shape{tokens, s.heads, s.head_dim}, kv_shape{tokens, s.kv_heads, s.head_dim};
  const TensorView q = pass.Keep(q_out_, x.dtype, q_shape);
  const TensorView k = pass.Keep(k_out_, x.dtype, kv_shape);
  const TensorView v = pass.Keep(v_out_, x.dtype, kv_shape);
  const TensorView q_raw = q_norm_ ? pass.Keep(q_in_, x.dtype, q_shape) : q;
  const TensorView k_raw = k_norm_ ? pass.Keep(k_in_, x.dtype, kv_shape) : k;
  q_.Forward(pass, x, q_raw.Reshape({tokens, s.heads * s.head_dim}));
  k_.Forward(pass, x, k_raw.Reshape({tokens, s.kv_heads * s.head_dim}));
  v_.Forward(pass, x, v.Reshape({tokens, s.kv_heads * s.head_dim}));
  if (q_norm_) {
    q_norm_->Forward(pass, q_raw, q);
    k_norm_->Forward(pass, k_raw, k);
  }
  Rotate(pass.context, *rotary_, pass.layout.positions, q);
  Rotate(pass.context, *rotary_, pass.layout.positions, k);
  const TensorView o = pass.Keep(o_in_, x.dtype, q_shape);
  Operands operands = Kept(pass);
  if (!pass.layout.shares_prompts()) {
    pass.Keep(lse_, DType::kF32, {s.heads, tokens});
    Attention(pass.context, Scores(pass, operands));
  } else {
    ArenaScope scope(pass.context.scratch);
    for (TensorView* x : {&operands.q, &operands.k, &operands.v}) *x = ToAttentionRows(pass, *x);
    const TensorView kept = std::exchange(operands.o, pass.context.scratch.New(x.dtype, operands.q.shape));
    pass.Keep(lse_, DType::kF32, {s.heads, operands.q.rows()});
    Attention(pass.context, Scores(pass, operands));
    FromAttentionRows(pass, operands.o, kept);
  }
  o_.Forward(pass, o.Reshape({tokens, s.heads * s.head_dim}), y);
}

void GqaAttention::BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const {
  const GqaShape& s = shape_;
  const int64_t tokens = dy.rows();
  const Shape q_shape{tokens, s.heads, s.head_dim}, kv_shape{tokens, s.kv_heads, s.head_dim};
  Arena& gradients = pass.saved.gradients();
  ArenaScope scope(pass.context.scratch);
  const TensorView d_o = pass.context.scratch.New(dy.dtype, q_shape);
  o_.BackwardInput(pass, dy, d_o.Reshape({tokens, s.heads * s.head_dim}));
  const TensorView dq = gradients.New(dy.dtype, q_shape);
  const TensorView dk = gradients.New(dy.dtype, kv_shape);
  const TensorView dv = gradients.New(dy.dtype, kv_shape);
  ScoresBackward(pass, d_o, dq, dk, dv);
  RotateBack(pass.context, *rotary_, pass.layout.positions, dq);
  RotateBack(pass.context, *rotary_, pass.layout.positions, dk);
  if (q_norm_) {
    q_norm_->BackwardInput(pass, dq, dq);
    k_norm_->BackwardInput(pass, dk, dk);
  }
  const TensorView part = pass.context.scratch.New(dy.dtype, dx.shape);
  q_.BackwardInput(pass, dq.Reshape({tokens, s.heads * s.head_dim}), dx);
  k_.BackwardInput(pass, dk.Reshape({tokens, s.kv_heads * s.head_dim}), part);
  Accumulate(pass.context, {.x = part, .y = dx});
  v_.BackwardInput(pass, dv.Reshape({tokens, s.kv_heads * s.head_dim}), part);
  Accumulate(pass.context, {.x = part, .y = dx});
}

void GqaAttention::ScoresBackward(const Pass& pass, TensorView d_o, TensorView dq, TensorView dk,
                                  TensorView dv) const {
  Operands operands = Kept(pass);
  if (!pass.layout.shares_prompts()) {
    return AttentionBackward(pass.context,
                             {.forward = Scores(pass, operands), .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
  }
  ArenaScope scope(pass.context.scratch);
  const int64_t tokens = d_o.shape[0];
  const auto flat = [tokens](TensorView x) { return x.Reshape({tokens, x.elements() / tokens}); };
  for (TensorView* x : {&operands.q, &operands.k, &operands.v, &operands.o}) *x = ToAttentionRows(pass, *x);
  const TensorView d_rows = ToOwnAttentionRows(pass, flat(d_o));
  const auto like = [&](TensorView x) { return pass.context.scratch.New(x.dtype, x.shape); };
  const Operands d{.q = like(operands.q), .k = like(operands.k), .v = like(operands.v), .o = d_rows};
  const AttentionArgs gradients = Scores(pass, d);
  AttentionBackward(pass.context, {.forward = Scores(pass, operands),
                                   .d_o = gradients.o,
                                   .dq = gradients.q,
                                   .dk = gradients.k,
                                   .dv = gradients.v});
  FromAttentionRows(pass, d.q, flat(dq));
  SumAttentionRows(pass, d.k, flat(dk));
  SumAttentionRows(pass, d.v, flat(dv));
}

void GqaAttention::BackwardWeight(const Pass& pass) const {
  o_.BackwardWeight(pass);
  q_.BackwardWeight(pass);
  k_.BackwardWeight(pass);
  v_.BackwardWeight(pass);
  if (q_norm_) {
    q_norm_->BackwardWeight(pass);
    k_norm_->BackwardWeight(pass);
  }
}

}  // namespace moebius
