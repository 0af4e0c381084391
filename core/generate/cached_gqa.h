// GQA's implementation of CachedAttention; see cached_attention.h.
#pragma once

#include "core/generate/cached_heads.h"
#include "core/generate/decode_weights.h"
#include "core/layers/gqa_attention.h"

namespace moebius {

class CachedGqa final : public CachedHeads {
 public:
  CachedGqa(const GqaAttention& layer, const DecodeWeights& weights, DType act)
      : CachedHeads({.heads = layer.shape().heads,
                     .kv_heads = layer.shape().kv_heads,
                     .qk_dim = layer.shape().head_dim,
                     .v_dim = layer.shape().head_dim,
                     .scale = layer.shape().scale},
                    act),
        layer_(layer),
        weights_(weights),
        shape_(layer.shape()),
        act_(act) {}

 private:
  Projected Project(const Context& context, TensorView x, TensorView positions) const override;
  TensorView Query(const Context& context, TensorView x, const Projected& projected,
                   TensorView positions) const override;
  void Output(const Context& context, TensorView o, TensorView y) const override;

  // x · wᵀ (+ bias), each head normalised where the model has it: [rows, heads, head_dim].
  TensorView Heads(const Context& context, TensorView x, int64_t heads, const Parameter& weight,
                   const Parameter* bias, const Parameter* norm) const;

  const GqaAttention& layer_;
  const DecodeWeights& weights_;
  const GqaShape shape_;
  const DType act_;
};

}  // namespace moebius
