#include "core/generate/cached_mla_exact.h"

#include "core/backend/ops.h"

namespace moebius {

CachedAttention::Projected CachedMlaExact::Project(const Context& context, TensorView x,
                                                   TensorView positions) const {
  const int64_t tokens = x.rows(), heads = shape_.heads, nope = shape_.nope_dim, qk = shape_.qk_dim();
  const TensorView latents = projections_.Latents(context, x, positions);
  const TensorView kv = projections_.KeysAndValues(context, latents);
  const TensorView k = context.scratch.New(act_, {tokens, heads, qk});
  const TensorView v = context.scratch.New(act_, {tokens, heads, shape_.v_dim});
  Cast(context, kv.Columns(0, nope), k.Columns(0, nope));
  Cast(context, kv.Columns(nope, shape_.v_dim), v);
  const TensorView rope = projections_.RopeKey(latents);
  for (int64_t h = 0; h < heads; ++h) {
    TensorView of_head = k.Reshape({tokens, heads * qk}).Columns(h * qk + nope, shape_.rope_dim);
    of_head.shape = rope.shape;
    Cast(context, rope, of_head);
  }
  return {.latents = latents, .k = k, .v = v};
}

TensorView CachedMlaExact::Query(const Context& context, TensorView x, const Projected& projected,
                                 TensorView positions) const {
  const TensorView q = projections_.Query(context, x, projected.latents);
  projections_.Rotate(context, q.Columns(shape_.nope_dim, shape_.rope_dim), positions);
  return q;
}

}  // namespace moebius
