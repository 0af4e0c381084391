#include "core/generate/mla_projections.h"

#include "core/backend/ops.h"

namespace moebius {
namespace {

void Norm(const Context& context, TensorView x, const Parameter& gain) {
  ArenaScope scope(context.scratch);
  RmsNorm(context, {.x = x,
                    .gain = gain.weight(),
                    .y = x,
                    .rstd = context.scratch.New(DType::kF32, {x.rows()}),
                    .epsilon = kLatentNormEpsilon});
}

}  // namespace

TensorView MlaProjections::Latents(const Context& context, TensorView x, TensorView positions) const {
  const MlaParameters& p = layer_.parameters();
  const TensorView a = context.scratch.New(act_, {x.rows(), shape_.a_dim()});
  weights_.Multiply(context, x, *p.a, a);
  if (shape_.q_lora_rank > 0) Norm(context, a.Columns(0, shape_.q_lora_rank), *p.q_norm);
  Norm(context, KvLatent(a), *p.kv_norm);
  Rotate(context, RopeKey(a), positions);
  return a;
}

TensorView MlaProjections::Query(const Context& context, TensorView x, TensorView latents) const {
  const TensorView q = context.scratch.New(act_, {x.rows(), shape_.heads * shape_.qk_dim()});
  weights_.Multiply(context, shape_.q_lora_rank > 0 ? latents.Columns(0, shape_.q_lora_rank) : x,
                    *layer_.parameters().q, q);
  return q.Reshape({x.rows(), shape_.heads, shape_.qk_dim()});
}

TensorView MlaProjections::KeysAndValues(const Context& context, TensorView latents) const {
  const int64_t width = shape_.nope_dim + shape_.v_dim;
  const TensorView kv = context.scratch.New(act_, {latents.rows(), shape_.heads * width});
  // The weight of the absorbed products, which are not in 8 bits: a token has one key wherever it is made.
  MatMul(context, {.a = KvLatent(latents),
                   .b = layer_.parameters().kv->weight(),
                   .c = kv,
                   .transpose_b = Transpose::kYes});
  return kv.Reshape({latents.rows(), shape_.heads, width});
}

void MlaProjections::Output(const Context& context, TensorView o, TensorView y) const {
  weights_.Multiply(context, o.Reshape({y.rows(), shape_.heads * shape_.v_dim}), *layer_.parameters().o, y);
}

}  // namespace moebius
