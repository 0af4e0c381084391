// MLA's implementation of CachedAttention in latent space; see cached_attention.h.
#pragma once

#include "core/generate/cached_attention.h"
#include "core/generate/mla_projections.h"

namespace moebius {

class CachedMla final : public CachedAttention {
 public:
  CachedMla(Backend& backend, Stream& stream, const MlaAttention& layer, const DecodeWeights& weights,
            DType act);

  void Refresh(Backend& backend, Stream& stream) override;
  void Reserve(Backend& backend, int64_t slots, int64_t capacity) override;
  void Copy(const Context& context, int64_t from, int64_t to, int64_t length) override;
  Projected Append(const Context& context, const TokenPlaces& places, TensorView x) override;
  void AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                     const Projected& projected, TensorView y) const override;
  void AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                    const Projected& projected, TensorView y) const override;
  int64_t bytes_per_token() const override;

 private:
  const MlaAttention& layer_;
  const MlaProjections projections_;
  const MlaShape shape_;
  const DType act_;
  Tensor w_uk_;   // [H, kv_lora_rank, nope_dim]: transposed, so that its product reads rows
  Tensor w_uv_;   // [H, v_dim, kv_lora_rank]
  Tensor cache_;  // [slots, capacity, kv_lora_rank + rope_dim]
};

}  // namespace moebius
