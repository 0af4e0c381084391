// MLA's implementation of CachedAttention that rounds as training does: the cache holds the up-projected keys
// and values of every head, so a step's attention is the training forward's. The price is the memory that
// MLA was made to save.
#pragma once

#include "core/generate/cached_attention.h"
#include "core/generate/mla_projections.h"

namespace moebius {

class CachedMlaExact final : public CachedAttention {
 public:
  CachedMlaExact(const MlaAttention& layer, const DecodeWeights& weights, DType act)
      : projections_(layer, weights, act), shape_(layer.shape()), act_(act) {}

  void Refresh(Backend&, Stream&) override {}
  void Reserve(Backend& backend, int64_t slots, int64_t capacity) override;
  void Copy(const Context& context, int64_t from, int64_t to, int64_t length) override;
  Projected Append(const Context& context, const TokenPlaces& places, TensorView x) override;
  void AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                     const Projected& projected, TensorView y) const override;
  void AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                    const Projected& projected, TensorView y) const override;
  int64_t bytes_per_token() const override;

 private:
  TensorView Query(const Context& context, TensorView x, TensorView latents, TensorView positions) const;

  const MlaProjections projections_;
  const MlaShape shape_;
  const DType act_;
  Tensor k_;  // [slots, capacity, H * qk_dim]: of every head [nope | rope], the rotary part in each
  Tensor v_;  // [slots, capacity, H * v_dim]
};

}  // namespace moebius
