#include "core/generate/cached_mla.h"

#include <vector>

#include "core/backend/ops.h"

namespace moebius {
namespace {

void Upload(Backend& backend, Stream& stream, const std::vector<float>& values, TensorView to) {
  Tensor staging(backend, DType::kF32, to.shape);
  backend.CopyToDevice(stream, values.data(), staging);
  backend.Cast(stream, staging, to);
  stream.Synchronize();
}

}  // namespace

CachedMla::CachedMla(Backend& backend, Stream& stream, const MlaAttention& layer,
                     const DecodeWeights& weights, DType act)
    : layer_(layer),
      projections_(layer, weights, act),
      shape_(layer.shape()),
      act_(act),
      w_uk_(backend, act, {shape_.heads, shape_.kv_lora_rank, shape_.nope_dim}),
      w_uv_(backend, act, {shape_.heads, shape_.v_dim, shape_.kv_lora_rank}) {
  Refresh(backend, stream);
}

void CachedMla::Refresh(Backend& backend, Stream& stream) {
  const int64_t heads = shape_.heads, latent = shape_.kv_lora_rank, nope = shape_.nope_dim, v = shape_.v_dim;
  const Parameter& kv = *layer_.parameters().kv;
  const std::vector<float> w = GetParameter(backend, stream, kv, 0, kv.shape().elements());
  std::vector<float> uk(heads * latent * nope), uv(heads * v * latent);
  for (int64_t h = 0; h < heads; ++h) {
    const float* rows = w.data() + h * (nope + v) * latent;  // nope rows of W_uk, then v rows of W_uv
    for (int64_t i = 0; i < nope; ++i) {
      for (int64_t c = 0; c < latent; ++c) uk[(h * latent + c) * nope + i] = rows[i * latent + c];
    }
    std::copy_n(rows + nope * latent, v * latent, uv.begin() + h * v * latent);
  }
  Upload(backend, stream, uk, w_uk_);
  Upload(backend, stream, uv, w_uv_);
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

CachedAttention::Projected CachedMla::Append(const Context& context, const TokenPlaces& places,
                                             TensorView x) {
  const TensorView latents = projections_.Latents(context, x, places.positions);
  const TensorView cache = cache_;
  ScatterRows(context, {.x = latents.Columns(shape_.q_lora_rank, shape_.kv_lora_rank + shape_.rope_dim),
                        .index = places.cache_rows,
                        .out = cache.Reshape({cache.rows(), cache.cols()})});
  return {.latents = latents};
}

void CachedMla::AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                              const Projected& projected, TensorView y) const {
  const int64_t tokens = x.rows(), heads = shape_.heads, nope = shape_.nope_dim, v = shape_.v_dim;
  ArenaScope scope(context.scratch);
  const TensorView q = projections_.Query(context, x, projected.latents);
  projections_.Rotate(context, q.Columns(nope, shape_.rope_dim), places.positions);
  const TensorView kv = projections_.KeysAndValues(context, projected.latents);
  const TensorView o = context.scratch.New(act_, {tokens, heads, v});
  Attention(context, {.q = q,
                      .k = kv.Columns(0, nope),
                      .k_shared = projections_.RopeKey(projected.latents),
                      .v = kv.Columns(nope, v),
                      .sequence_starts = places.starts,
                      .scale = shape_.scale,
                      .o = o,
                      .lse = context.scratch.New(DType::kF32, {heads, tokens})});
  projections_.Output(context, o, y);
}

void CachedMla::AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                             const Projected& projected, TensorView y) const {
  const int64_t rows = x.rows(), heads = shape_.heads, latent = shape_.kv_lora_rank, rope = shape_.rope_dim;
  ArenaScope scope(context.scratch);
  const TensorView q = projections_.Query(context, x, projected.latents);
  const TensorView latent_q = context.scratch.New(act_, {rows, heads, latent + rope});
  HeadMatMul(context, {.a = q.Columns(0, shape_.nope_dim), .w = w_uk_, .c = latent_q.Columns(0, latent)});
  Cast(context, q.Columns(shape_.nope_dim, rope), latent_q.Columns(latent, rope));
  projections_.Rotate(context, latent_q.Columns(latent, rope), places.positions);
  const TensorView cache = cache_.view().Rows(places.first_slot, places.sequences());
  const TensorView latent_o = context.scratch.New(act_, {rows, heads, latent});
  AttendCaches(
      context, places,
      {.q = latent_q, .k = cache, .v = cache.Columns(0, latent), .scale = shape_.scale, .o = latent_o});
  const TensorView o = context.scratch.New(act_, {rows, heads, shape_.v_dim});
  HeadMatMul(context, {.a = latent_o, .w = w_uv_, .c = o});
  projections_.Output(context, o, y);
}

}  // namespace moebius
