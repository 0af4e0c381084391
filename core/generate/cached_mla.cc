#include "core/generate/cached_mla.h"

#include <vector>

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

Tensor Upload(Backend& backend, Stream& stream, DType act, Shape shape, const std::vector<float>& values) {
  Tensor staging(backend, DType::kF32, shape);
  backend.CopyToDevice(stream, values.data(), staging);
  Tensor out(backend, act, shape);
  backend.Cast(stream, staging, out);
  stream.Synchronize();
  return out;
}

// The rotary key, the last columns of [latent | rope], as one head.
TensorView RopeKey(TensorView latents, int64_t rope_dim) {
  TensorView out = latents.Columns(latents.cols() - rope_dim, rope_dim);
  out.shape = {latents.rows(), 1, rope_dim};
  return out;
}

}  // namespace

CachedMla::CachedMla(Backend& backend, Stream& stream, const MlaAttention& layer, DType act)
    : layer_(layer), shape_(layer.shape()), act_(act) {
  const int64_t heads = shape_.heads, latent = shape_.kv_lora_rank, nope = shape_.nope_dim, v = shape_.v_dim;
  const Parameter& kv = *layer.parameters().kv;
  const std::vector<float> w = GetParameter(backend, stream, kv, 0, kv.shape().elements());
  std::vector<float> uk(heads * latent * nope), uv(heads * v * latent);
  for (int64_t h = 0; h < heads; ++h) {
    const float* rows = w.data() + h * (nope + v) * latent;  // nope rows of W_uk, then v rows of W_uv
    for (int64_t i = 0; i < nope; ++i) {
      for (int64_t c = 0; c < latent; ++c) uk[(h * latent + c) * nope + i] = rows[i * latent + c];
    }
    std::copy_n(rows + nope * latent, v * latent, uv.begin() + h * v * latent);
  }
  w_uk_ = Upload(backend, stream, act, {heads, latent, nope}, uk);
  w_uv_ = Upload(backend, stream, act, {heads, v, latent}, uv);
}

void CachedMla::Reserve(Backend& backend, int64_t slots, int64_t capacity) {
  cache_ = Tensor();
  cache_ = Tensor(backend, act_, {slots, capacity, shape_.kv_lora_rank + shape_.rope_dim});
}

void CachedMla::Copy(const Context& context, int64_t from, int64_t to, int64_t length) {
  const TensorView cache = cache_;
  Cast(context, cache.Index(from).Rows(0, length), cache.Index(to).Rows(0, length));
}

int64_t CachedMla::bytes_per_token() const { return (shape_.kv_lora_rank + shape_.rope_dim) * SizeOf(act_); }

void CachedMla::Rotate(const Context& context, TensorView x, TensorView positions) const {
  const RotaryTable& rotary = layer_.rotary();
  Rope(context,
       {.x = x, .positions = positions, .cos = rotary.cos, .sin = rotary.sin, .style = rotary.style});
}

CachedAttention::Projected CachedMla::Append(const Context& context, const TokenPlaces& places,
                                             TensorView x) {
  const MlaParameters& p = layer_.parameters();
  const TensorView a = context.scratch.New(act_, {x.rows(), shape_.a_dim()});
  MatMul(context, {.a = x, .b = p.a->weight(), .c = a, .transpose_b = Transpose::kYes});
  if (shape_.q_lora_rank > 0) Norm(context, a.Columns(0, shape_.q_lora_rank), *p.q_norm);
  Norm(context, a.Columns(shape_.q_lora_rank, shape_.kv_lora_rank), *p.kv_norm);
  Rotate(context, RopeKey(a, shape_.rope_dim), places.positions);
  const TensorView cache = cache_;
  ScatterRows(context, {.x = a.Columns(shape_.q_lora_rank, shape_.kv_lora_rank + shape_.rope_dim),
                        .index = places.cache_rows,
                        .out = cache.Reshape({cache.rows(), cache.cols()})});
  return {.latents = a};
}

TensorView CachedMla::Query(const Context& context, TensorView x, TensorView latents) const {
  const TensorView q = context.scratch.New(act_, {x.rows(), shape_.heads * shape_.qk_dim()});
  MatMul(context, {.a = shape_.q_lora_rank > 0 ? latents.Columns(0, shape_.q_lora_rank) : x,
                   .b = layer_.parameters().q->weight(),
                   .c = q,
                   .transpose_b = Transpose::kYes});
  return q.Reshape({x.rows(), shape_.heads, shape_.qk_dim()});
}

void CachedMla::AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                              const Projected& projected, TensorView y) const {
  const MlaParameters& p = layer_.parameters();
  const int64_t tokens = x.rows(), heads = shape_.heads, nope = shape_.nope_dim, v = shape_.v_dim;
  ArenaScope scope(context.scratch);
  const TensorView q = Query(context, x, projected.latents);
  Rotate(context, q.Columns(nope, shape_.rope_dim), places.positions);
  const TensorView kv = context.scratch.New(act_, {tokens, heads, nope + v});
  MatMul(context, {.a = projected.latents.Columns(shape_.q_lora_rank, shape_.kv_lora_rank),
                   .b = p.kv->weight(),
                   .c = kv.Reshape({tokens, heads * (nope + v)}),
                   .transpose_b = Transpose::kYes});
  const TensorView o = context.scratch.New(act_, {tokens, heads, v});
  Attention(context, {.q = q,
                      .k = kv.Columns(0, nope),
                      .k_shared = RopeKey(projected.latents, shape_.rope_dim),
                      .v = kv.Columns(nope, v),
                      .sequence_starts = places.starts,
                      .scale = shape_.scale,
                      .o = o,
                      .lse = context.scratch.New(DType::kF32, {heads, tokens})});
  MatMul(context,
         {.a = o.Reshape({tokens, heads * v}), .b = p.o->weight(), .c = y, .transpose_b = Transpose::kYes});
}

void CachedMla::AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                             const Projected& projected, TensorView y) const {
  const int64_t batch = x.rows(), heads = shape_.heads, latent = shape_.kv_lora_rank, rope = shape_.rope_dim;
  ArenaScope scope(context.scratch);
  const TensorView q = Query(context, x, projected.latents);
  const TensorView latent_q = context.scratch.New(act_, {batch, heads, latent + rope});
  HeadMatMul(context, {.a = q.Columns(0, shape_.nope_dim), .w = w_uk_, .c = latent_q.Columns(0, latent)});
  Cast(context, q.Columns(shape_.nope_dim, rope), latent_q.Columns(latent, rope));
  Rotate(context, latent_q.Columns(latent, rope), places.positions);
  const TensorView cache = cache_.view().Rows(places.first_slot, batch);
  const TensorView latent_o = context.scratch.New(act_, {batch, heads, latent});
  DecodeAttention(context, {.q = latent_q,
                            .k = cache,
                            .v = cache.Columns(0, latent),
                            .lengths = places.lengths,
                            .scale = shape_.scale,
                            .o = latent_o});
  const TensorView o = context.scratch.New(act_, {batch, heads, shape_.v_dim});
  HeadMatMul(context, {.a = latent_o, .w = w_uv_, .c = o});
  MatMul(context, {.a = o.Reshape({batch, heads * shape_.v_dim}),
                   .b = layer_.parameters().o->weight(),
                   .c = y,
                   .transpose_b = Transpose::kYes});
}

}  // namespace moebius
