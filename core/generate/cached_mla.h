// Implementations of CachedAttention; see cached_attention.h.
#pragma once

#include "core/generate/cached_attention.h"
#include "core/layers/mla_attention.h"

namespace moebius {

class CachedMla final : public CachedAttention {
 public:
  CachedMla(Backend& backend, Stream& stream, const MlaAttention& layer, DType act);

  void Reserve(Backend& backend, int64_t slots, int64_t capacity) override;
  void Copy(const Context& context, int64_t from, int64_t to, int64_t length) override;
  Projected Append(const Context& context, const TokenPlaces& places, TensorView x) override;
  void AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                     const Projected& projected, TensorView y) const override;
  void AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                    const Projected& projected, TensorView y) const override;
  int64_t bytes_per_token() const override;

 private:
  TensorView Query(const Context& context, TensorView x,
                   TensorView latents) const;  // [rows, H, qk_dim], not rotated
  void Rotate(const Context& context, TensorView x, TensorView positions) const;

  const MlaAttention& layer_;
  const MlaShape shape_;
  const DType act_;
  Tensor w_uk_;   // [H, kv_lora_rank, nope_dim]: transposed, so that its product reads rows
  Tensor w_uv_;   // [H, v_dim, kv_lora_rank]
  Tensor cache_;  // [slots, capacity, kv_lora_rank + rope_dim]
};

}  // namespace moebius
