// MLA's implementation of CachedAttention that rounds as training does: the cache holds the up-projected keys
// and values of every head, so a step's attention is the training forward's. The price is the memory that
// MLA was made to save.
#pragma once

#include "core/generate/cached_heads.h"
#include "core/generate/mla_projections.h"

namespace moebius {

class CachedMlaExact final : public CachedHeads {
 public:
  CachedMlaExact(const MlaAttention& layer, const DecodeWeights& weights, DType act)
      : CachedHeads({.heads = layer.shape().heads,
                     .kv_heads = layer.shape().heads,
                     .qk_dim = layer.shape().qk_dim(),
                     .v_dim = layer.shape().v_dim,
                     .scale = layer.shape().scale},
                    act),
        projections_(layer, weights, act),
        shape_(layer.shape()),
        act_(act) {}

 private:
  // Each head's key is [nope | rope], the rotary part the same in all.
  Projected Project(const Context& context, TensorView x, TensorView positions) const override;
  TensorView Query(const Context& context, TensorView x, const Projected& projected,
                   TensorView positions) const override;
  void Output(const Context& context, TensorView o, TensorView y) const override {
    projections_.Output(context, o, y);
  }

  const MlaProjections projections_;
  const MlaShape shape_;
  const DType act_;
};

}  // namespace moebius
