#include "core/generate/cached_heads.h"

#include "core/backend/ops.h"

namespace moebius {

void CachedHeads::Reserve(Backend& backend, int64_t slots, int64_t capacity) {
  k_ = Tensor();
  v_ = Tensor();
  k_ = Tensor(backend, act_, {slots, capacity, shape_.kv_heads * shape_.qk_dim});
  v_ = Tensor(backend, act_, {slots, capacity, shape_.kv_heads * shape_.v_dim});
}

void CachedHeads::Copy(const Context& context, int64_t from, int64_t to, int64_t length) {
  for (const TensorView cache : {k_.view(), v_.view()}) {
    Cast(context, cache.Index(from).Rows(0, length), cache.Index(to).Rows(0, length));
  }
}

int64_t CachedHeads::bytes_per_token() const {
  return shape_.kv_heads * (shape_.qk_dim + shape_.v_dim) * SizeOf(act_);
}

CachedAttention::Projected CachedHeads::Append(const Context& context, const TokenPlaces& places,
                                               TensorView x) {
  Projected projected = Project(context, x, places.positions);
  const auto store = [&](TensorView rows, TensorView cache) {
    ScatterRows(context, {.x = rows.Reshape({x.rows(), cache.cols()}),
                          .index = places.cache_rows,
                          .out = cache.Reshape({cache.rows(), cache.cols()})});
  };
  store(projected.k, k_);
  store(projected.v, v_);
  return projected;
}

void CachedHeads::AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                                const Projected& projected, TensorView y) const {
  const int64_t tokens = x.rows(), heads = shape_.heads;
  ArenaScope scope(context.scratch);
  const TensorView q = Query(context, x, projected, places.positions);
  const TensorView o = context.scratch.New(act_, {tokens, heads, shape_.v_dim});
  Attention(context, {.q = q,
                      .k = projected.k,
                      .v = projected.v,
                      .sequence_starts = places.starts,
                      .scale = shape_.scale,
                      .o = o,
                      .lse = context.scratch.New(DType::kF32, {heads, tokens})});
  Output(context, o, y);
}

void CachedHeads::AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                               const Projected& projected, TensorView y) const {
  const int64_t batch = places.sequences();
  ArenaScope scope(context.scratch);
  const TensorView q = Query(context, x, projected, places.positions);
  const TensorView o = context.scratch.New(act_, {x.rows(), shape_.heads, shape_.v_dim});
  AttendCaches(context, places,
               {.q = q,
                .k = k_.view().Rows(places.first_slot, batch),
                .v = v_.view().Rows(places.first_slot, batch),
                .scale = shape_.scale,
                .o = o});
  Output(context, o, y);
}

}  // namespace moebius
