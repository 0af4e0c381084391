#include "core/generate/cached_gqa.h"

#include "core/backend/ops.h"

namespace moebius {

TensorView CachedGqa::Heads(const Context& context, TensorView x, int64_t heads, const Parameter& weight,
                            const Parameter* bias, const Parameter* norm) const {
  const TensorView out = context.scratch.New(act_, {x.rows(), heads, shape_.head_dim});
  weights_.Multiply(context, x, weight, out.Reshape({x.rows(), heads * shape_.head_dim}), bias);
  if (norm == nullptr) return out;
  ArenaScope scope(context.scratch);
  RmsNorm(context, {.x = out,
                    .gain = norm->weight(),
                    .y = out,
                    .rstd = context.scratch.New(DType::kF32, {out.rows()}),
                    .epsilon = shape_.norm_epsilon});
  return out;
}

CachedAttention::Projected CachedGqa::Project(const Context& context, TensorView x,
                                              TensorView positions) const {
  const GqaParameters& p = layer_.parameters();
  const TensorView k = Heads(context, x, shape_.kv_heads, *p.k, p.k_bias, p.k_norm);
  const TensorView v = Heads(context, x, shape_.kv_heads, *p.v, p.v_bias, nullptr);
  Rotate(context, layer_.rotary(), positions, k);
  return {.k = k, .v = v};
}

TensorView CachedGqa::Query(const Context& context, TensorView x, const Projected&,
                            TensorView positions) const {
  const GqaParameters& p = layer_.parameters();
  const TensorView q = Heads(context, x, shape_.heads, *p.q, p.q_bias, p.q_norm);
  Rotate(context, layer_.rotary(), positions, q);
  return q;
}

void CachedGqa::Output(const Context& context, TensorView o, TensorView y) const {
  weights_.Multiply(context, o.Reshape({o.shape[0], shape_.heads * shape_.head_dim}), *layer_.parameters().o,
                    y);
}

}  // namespace moebius
