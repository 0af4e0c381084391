#include "core/layers/mla_attention.h"

#include <utility>

#include "core/backend/ops.h"
#include "core/layers/shared_prompts.h"

namespace moebius {
namespace {

// Columns [begin, begin + count) of each head of [T, heads * width]: [T, heads, count].
TensorView HeadColumns(TensorView x, int64_t heads, int64_t begin, int64_t count) {
  return x.Reshape({x.rows(), heads, x.cols() / heads}).Columns(begin, count);
}

}  // namespace

MlaAttention::MlaAttention(SlotCounter& slots, const MlaShape& shape, const MlaParameters& p,
                           const RotaryTable* rotary)
    : shape_(shape),
      parameters_(p),
      rotary_(rotary),
      a_(slots, p.a),
      q_(slots, p.q),
      kv_norm_(slots, p.kv_norm, kLatentNormEpsilon),
      kv_(slots, p.kv),
      o_(slots, p.o),
      a_out_(slots.Take()),
      c_q_(slots.Take()),
      c_kv_(slots.Take()),
      q_out_(slots.Take()),
      kv_out_(slots.Take()),
      o_in_(slots.Take()),
      lse_(slots.Take()) {
  if (shape.q_lora_rank > 0) q_norm_.emplace(slots, p.q_norm, kLatentNormEpsilon);
  CHECK_EQ(a_.out(), shape.a_dim()) << p.a->name();
}

void MlaAttention::SetInput(const Pass& pass, TensorView x) const {
  a_.SetInput(pass, x);
  if (!q_norm_) q_.SetInput(pass, x);
}

void MlaAttention::UpProject(const Pass& pass, TensorView c_q, TensorView c_kv, TensorView q,
                             TensorView kv) const {
  q_.Forward(pass, c_q, q);
  kv_.Forward(pass, c_kv, kv);
  Rotate(pass.context, *rotary_, pass.layout.positions,
         HeadColumns(q, shape_.heads, shape_.nope_dim, shape_.rope_dim));
}

MlaAttention::Operands MlaAttention::Kept(const Pass& pass) const {
  return {.q = pass.saved[q_out_],
          .kv = pass.saved[kv_out_],
          .k_rope = pass.saved[a_out_].Columns(shape_.q_lora_rank + shape_.kv_lora_rank, shape_.rope_dim),
          .o = pass.saved[o_in_]};
}

AttentionArgs MlaAttention::Scores(const Pass& pass, const Operands& x) const {
  const MlaShape& s = shape_;
  const int64_t rows = x.q.rows();
  TensorView k_rope = x.k_rope;
  k_rope.shape = {rows, 1, s.rope_dim};
  return {.q = x.q.Reshape({rows, s.heads, s.qk_dim()}),
          .k = HeadColumns(x.kv, s.heads, 0, s.nope_dim),
          .k_shared = k_rope,
          .v = HeadColumns(x.kv, s.heads, s.nope_dim, s.v_dim),
          .sequence_starts = pass.layout.attention_starts,
          .scale = s.scale,
          .o = x.o.Reshape({rows, s.heads, s.v_dim}),
          .lse = pass.saved[lse_]};
}

void MlaAttention::ScoresForward(const Pass& pass) const {
  Operands operands = Kept(pass);
  if (!pass.layout.shares_prompts()) {
    pass.Keep(lse_, DType::kF32, {shape_.heads, operands.q.rows()});
    return Attention(pass.context, Scores(pass, operands));
  }
  ArenaScope scope(pass.context.scratch);
  for (TensorView* x : {&operands.q, &operands.kv, &operands.k_rope}) *x = ToAttentionRows(pass, *x);
  const int64_t rows = operands.q.rows();
  const TensorView kept = std::exchange(
      operands.o, pass.context.scratch.New(operands.q.dtype, {rows, shape_.heads * shape_.v_dim}));
  pass.Keep(lse_, DType::kF32, {shape_.heads, rows});
  Attention(pass.context, Scores(pass, operands));
  FromAttentionRows(pass, operands.o, kept);
}

void MlaAttention::ScoresBackward(const Pass& pass, const Operands& gradients) const {
  const auto run = [&](const Operands& operands, const Operands& d) {
    const AttentionArgs to = Scores(pass, d);
    moebius::AttentionBackward(pass.context, {.forward = Scores(pass, operands),
                                              .d_o = to.o,
                                              .dq = to.q,
                                              .dk = to.k,
                                              .dk_shared = to.k_shared,
                                              .dv = to.v});
  };
  Operands operands = Kept(pass);
  if (!pass.layout.shares_prompts()) return run(operands, gradients);
  ArenaScope scope(pass.context.scratch);
  for (TensorView* x : {&operands.q, &operands.kv, &operands.k_rope, &operands.o}) {
    *x = ToAttentionRows(pass, *x);
  }
  const auto like = [&](TensorView x) { return pass.context.scratch.New(x.dtype, x.shape); };
  const Operands d{.q = like(operands.q),
                   .kv = like(operands.kv),
                   .k_rope = like(operands.k_rope),
                   .o = ToOwnAttentionRows(pass, gradients.o)};
  run(operands, d);
  FromAttentionRows(pass, d.q, gradients.q);
  SumAttentionRows(pass, d.kv, gradients.kv);
  SumAttentionRows(pass, d.k_rope, gradients.k_rope);
}

void MlaAttention::Forward(const Pass& pass, TensorView x, TensorView y) const {
  const MlaShape& s = shape_;
  const int64_t tokens = x.rows();
  const TensorView a = pass.Keep(a_out_, x.dtype, {tokens, s.a_dim()});
  a_.Forward(pass, x, a);
  TensorView k_rope = a.Columns(s.q_lora_rank + s.kv_lora_rank, s.rope_dim);
  k_rope.shape = {tokens, 1, s.rope_dim};
  Rotate(pass.context, *rotary_, pass.layout.positions, k_rope);

  const TensorView c_kv = pass.Keep(c_kv_, x.dtype, {tokens, s.kv_lora_rank});
  kv_norm_.Forward(pass, a.Columns(s.q_lora_rank, s.kv_lora_rank), c_kv);
  TensorView c_q = x;
  if (q_norm_) {
    c_q = pass.Keep(c_q_, x.dtype, {tokens, s.q_lora_rank});
    q_norm_->Forward(pass, a.Columns(0, s.q_lora_rank), c_q);
  }
  pass.Keep(o_in_, x.dtype, {tokens, s.heads * s.v_dim});
  ArenaScope scope(pass.context.scratch);
  Arena& up = pass.recompute.mla_up ? pass.context.scratch : pass.saved.activations();
  const TensorView q = pass.saved[q_out_] = up.New(x.dtype, {tokens, s.heads * s.qk_dim()});
  const TensorView kv = pass.saved[kv_out_] = up.New(x.dtype, {tokens, s.heads * (s.nope_dim + s.v_dim)});
  UpProject(pass, c_q, c_kv, q, kv);
  ScoresForward(pass);
  o_.Forward(pass, pass.saved[o_in_], y);
}

void MlaAttention::BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const {
  const MlaShape& s = shape_;
  const int64_t tokens = dy.rows();
  Arena& gradients = pass.saved.gradients();
  ArenaScope scope(pass.context.scratch);
  if (pass.recompute.mla_up) {
    const TensorView q = pass.saved[q_out_] =
        pass.context.scratch.New(dy.dtype, {tokens, s.heads * s.qk_dim()});
    const TensorView kv = pass.saved[kv_out_] =
        pass.context.scratch.New(dy.dtype, {tokens, s.heads * (s.nope_dim + s.v_dim)});
    UpProject(pass, q_norm_ ? pass.saved[c_q_] : q_.Input(pass), pass.saved[c_kv_], q, kv);
  }
  const TensorView d_o = pass.context.scratch.New(dy.dtype, {tokens, s.heads * s.v_dim});
  o_.BackwardInput(pass, dy, d_o);

  const TensorView dq = gradients.New(dy.dtype, {tokens, s.heads * s.qk_dim()});
  const TensorView dkv = gradients.New(dy.dtype, {tokens, s.heads * (s.nope_dim + s.v_dim)});
  const TensorView da = gradients.New(dy.dtype, {tokens, s.a_dim()});
  const Operands d{
      .q = dq, .kv = dkv, .k_rope = da.Columns(s.q_lora_rank + s.kv_lora_rank, s.rope_dim), .o = d_o};
  ScoresBackward(pass, d);
  TensorView dk_rope = d.k_rope;
  dk_rope.shape = {tokens, 1, s.rope_dim};
  RotateBack(pass.context, *rotary_, pass.layout.positions, HeadColumns(dq, s.heads, s.nope_dim, s.rope_dim));
  RotateBack(pass.context, *rotary_, pass.layout.positions, dk_rope);

  const TensorView dc_kv = da.Columns(s.q_lora_rank, s.kv_lora_rank);
  kv_.BackwardInput(pass, dkv, dc_kv);
  kv_norm_.BackwardInput(pass, dc_kv, dc_kv);
  if (q_norm_) {
    const TensorView dc_q = da.Columns(0, s.q_lora_rank);
    q_.BackwardInput(pass, dq, dc_q);
    q_norm_->BackwardInput(pass, dc_q, dc_q);
    a_.BackwardInput(pass, da, dx);
  } else {
    const TensorView dx_q = pass.context.scratch.New(dy.dtype, dx.shape);
    q_.BackwardInput(pass, dq, dx_q);
    a_.BackwardInput(pass, da, dx);
    Accumulate(pass.context, {.x = dx_q, .y = dx});
  }
}

void MlaAttention::BackwardWeight(const Pass& pass) const {
  o_.BackwardWeight(pass);
  kv_.BackwardWeight(pass);
  kv_norm_.BackwardWeight(pass);
  q_.BackwardWeight(pass);
  if (q_norm_) q_norm_->BackwardWeight(pass);
  a_.BackwardWeight(pass);
}

}  // namespace moebius
