#include "core/generate/cached_mla_exact.h"

#include "core/backend/ops.h"

namespace moebius {

void CachedMlaExact::Reserve(Backend& backend, int64_t slots, int64_t capacity) {
  k_ = Tensor();
  v_ = Tensor();
  k_ = Tensor(backend, act_, {slots, capacity, shape_.heads * shape_.qk_dim()});
  v_ = Tensor(backend, act_, {slots, capacity, shape_.heads * shape_.v_dim});
}

void CachedMlaExact::Copy(const Context& context, int64_t from, int64_t to, int64_t length) {
  for (const TensorView cache : {k_.view(), v_.view()}) {
    Cast(context, cache.Index(from).Rows(0, length), cache.Index(to).Rows(0, length));
  }
}

int64_t CachedMlaExact::bytes_per_token() const {
  return shape_.heads * (shape_.qk_dim() + shape_.v_dim) * SizeOf(act_);
}

CachedAttention::Projected CachedMlaExact::Append(const Context& context, const TokenPlaces& places,
                                                  TensorView x) {
  const int64_t tokens = x.rows(), heads = shape_.heads, nope = shape_.nope_dim, qk = shape_.qk_dim();
  const TensorView latents = projections_.Latents(context, x, places.positions);
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
  const auto store = [&](TensorView rows, TensorView cache) {
    ScatterRows(context, {.x = rows.Reshape({tokens, cache.cols()}),
                          .index = places.cache_rows,
                          .out = cache.Reshape({cache.rows(), cache.cols()})});
  };
  store(k, k_);
  store(v, v_);
  return {.latents = latents, .k = k, .v = v};
}

TensorView CachedMlaExact::Query(const Context& context, TensorView x, TensorView latents,
                                 TensorView positions) const {
  const TensorView q = projections_.Query(context, x, latents);
  projections_.Rotate(context, q.Columns(shape_.nope_dim, shape_.rope_dim), positions);
  return q;
}

void CachedMlaExact::AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                                   const Projected& projected, TensorView y) const {
  const int64_t tokens = x.rows(), heads = shape_.heads;
  ArenaScope scope(context.scratch);
  const TensorView o = context.scratch.New(act_, {tokens, heads, shape_.v_dim});
  Attention(context, {.q = Query(context, x, projected.latents, places.positions),
                      .k = projected.k,
                      .v = projected.v,
                      .sequence_starts = places.starts,
                      .scale = shape_.scale,
                      .o = o,
                      .lse = context.scratch.New(DType::kF32, {heads, tokens})});
  projections_.Output(context, o, y);
}

void CachedMlaExact::AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                                  const Projected& projected, TensorView y) const {
  const int64_t batch = places.sequences();
  ArenaScope scope(context.scratch);
  const TensorView o = context.scratch.New(act_, {x.rows(), shape_.heads, shape_.v_dim});
  AttendCaches(context, places,
               {.q = Query(context, x, projected.latents, places.positions),
                .k = k_.view().Rows(places.first_slot, batch),
                .v = v_.view().Rows(places.first_slot, batch),
                .scale = shape_.scale,
                .o = o});
  projections_.Output(context, o, y);
}

}  // namespace moebius
