// GQA's implementation of CachedAttention; see cached_attention.h.
#pragma once

#include "core/generate/cached_attention.h"
#include "core/generate/decode_weights.h"
#include "core/layers/gqa_attention.h"

namespace moebius {

class CachedGqa final : public CachedAttention {
 public:
  CachedGqa(const GqaAttention& layer, const DecodeWeights& weights, DType act)
      : layer_(layer), weights_(weights), shape_(layer.shape()), act_(act) {}

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
  // x · wᵀ (+ bias), each head normalised where the model has it, then rotated: [rows, heads, head_dim].
  TensorView Heads(const Context& context, TensorView x, int64_t heads, const Parameter& weight,
                   const Parameter* bias, const Parameter* norm) const;
  void Rotate(const Context& context, TensorView x, TensorView positions) const;
  TensorView Query(const Context& context, TensorView x, TensorView positions) const;
  void Output(const Context& context, TensorView o, TensorView y) const;

  const GqaAttention& layer_;
  const DecodeWeights& weights_;
  const GqaShape shape_;
  const DType act_;
  Tensor k_;  // [slots, capacity, G * head_dim]
  Tensor v_;
};

}  // namespace moebius
