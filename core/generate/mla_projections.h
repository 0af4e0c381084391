// What both caches of MLA do with tokens before and after attention.
#pragma once

#include "core/generate/decode_weights.h"
#include "core/layers/mla_attention.h"

namespace moebius {

class MlaProjections {
 public:
  MlaProjections(const MlaAttention& layer, const DecodeWeights& weights, DType act)
      : layer_(layer), weights_(weights), shape_(layer.shape()), act_(act) {}

  // [c_q | c_kv | k_rope] of x [T, hidden]: both latents normalised, the key rotated; in the context's
  // scratch.
  TensorView Latents(const Context& context, TensorView x, TensorView positions) const;
  TensorView KvLatent(TensorView latents) const {
    return latents.Columns(shape_.q_lora_rank, shape_.kv_lora_rank);
  }
  TensorView RopeKey(TensorView latents) const {  // [T, 1, rope_dim]
    TensorView out = latents.Columns(latents.cols() - shape_.rope_dim, shape_.rope_dim);
    out.shape = {latents.rows(), 1, shape_.rope_dim};
    return out;
  }
  // [T, H, qk_dim], not rotated.
  TensorView Query(const Context& context, TensorView x, TensorView latents) const;
  // [T, H, nope_dim + v_dim].
  TensorView KeysAndValues(const Context& context, TensorView latents) const;
  void Rotate(const Context& context, TensorView x, TensorView positions) const {
    moebius::Rotate(context, layer_.rotary(), positions, x);
  }
  // y [T, hidden] of o [T, H, v_dim].
  void Output(const Context& context, TensorView o, TensorView y) const;

 private:
  const MlaAttention& layer_;
  const DecodeWeights& weights_;
  const MlaShape shape_;
  const DType act_;
};

}  // namespace moebius
