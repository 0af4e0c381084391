#include "core/generate/cached_gqa.h"

#include "core/backend/ops.h"

namespace moebius {

void CachedGqa::Reserve(Backend& backend, int64_t slots, int64_t capacity) {
  k_ = Tensor();
  v_ = Tensor();
  k_ = Tensor(backend, act_, {slots, capacity, shape_.kv_heads * shape_.head_dim});
  v_ = Tensor(backend, act_, {slots, capacity, shape_.kv_heads * shape_.head_dim});
}

void CachedGqa::Copy(const Context& context, int64_t from, int64_t to, int64_t length) {
  for (const TensorView cache : {k_.view(), v_.view()}) {
    Cast(context, cache.Index(from).Rows(0, length), cache.Index(to).Rows(0, length));
  }
}

int64_t CachedGqa::bytes_per_token() const { return 2 * shape_.kv_heads * shape_.head_dim * SizeOf(act_); }

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

void CachedGqa::Rotate(const Context& context, TensorView x, TensorView positions) const {
  const RotaryTable& rotary = layer_.rotary();
  Rope(context,
       {.x = x, .positions = positions, .cos = rotary.cos, .sin = rotary.sin, .style = rotary.style});
}

TensorView CachedGqa::Query(const Context& context, TensorView x, TensorView positions) const {
  const GqaParameters& p = layer_.parameters();
  const TensorView q = Heads(context, x, shape_.heads, *p.q, p.q_bias, p.q_norm);
  Rotate(context, q, positions);
  return q;
}

CachedAttention::Projected CachedGqa::Append(const Context& context, const TokenPlaces& places,
                                             TensorView x) {
  const GqaParameters& p = layer_.parameters();
  const TensorView k = Heads(context, x, shape_.kv_heads, *p.k, p.k_bias, p.k_norm);
  const TensorView v = Heads(context, x, shape_.kv_heads, *p.v, p.v_bias, nullptr);
  Rotate(context, k, places.positions);
  const int64_t width = shape_.kv_heads * shape_.head_dim;
  const auto store = [&](TensorView rows, TensorView cache) {
    ScatterRows(context, {.x = rows.Reshape({x.rows(), width}),
                          .index = places.cache_rows,
                          .out = cache.Reshape({cache.rows(), width})});
  };
  store(k, k_);
  store(v, v_);
  return {.k = k, .v = v};
}

void CachedGqa::AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                              const Projected& projected, TensorView y) const {
  const int64_t tokens = x.rows();
  ArenaScope scope(context.scratch);
  const TensorView q = Query(context, x, places.positions);
  const TensorView o = context.scratch.New(act_, {tokens, shape_.heads, shape_.head_dim});
  Attention(context, {.q = q,
                      .k = projected.k,
                      .v = projected.v,
                      .sequence_starts = places.starts,
                      .scale = shape_.scale,
                      .o = o,
                      .lse = context.scratch.New(DType::kF32, {shape_.heads, tokens})});
  Output(context, o, y);
}

void CachedGqa::AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                             const Projected&, TensorView y) const {
  const int64_t batch = places.sequences();
  ArenaScope scope(context.scratch);
  const TensorView q = Query(context, x, places.positions);
  const TensorView o = context.scratch.New(act_, {x.rows(), shape_.heads, shape_.head_dim});
  AttendCaches(context, places,
               {.q = q,
                .k = k_.view().Rows(places.first_slot, batch),
                .v = v_.view().Rows(places.first_slot, batch),
                .scale = shape_.scale,
                .o = o});
  Output(context, o, y);
}

void CachedGqa::Output(const Context& context, TensorView o, TensorView y) const {
  weights_.Multiply(context, o.Reshape({o.shape[0], shape_.heads * shape_.head_dim}), *layer_.parameters().o,
                    y);
}

}  // namespace moebius
