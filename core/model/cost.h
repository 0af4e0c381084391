// What a model costs: parameters, FLOPs and cache bytes per token, as the field counts them (cost.md 1).
#pragma once

#include "core/model/config.h"

namespace moebius {

struct ModelCost {
  int64_t parameters = 0;      // stored, without MTP modules
  int64_t active = 0;          // used by one token, embedding and head counted
  int64_t mtp_parameters = 0;  // of the MTP modules (their embedding and head are the model's)
  int64_t mtp_active = 0;
  // Trained FLOPs a token: 6 x active matrices (2 a multiply-add, forward and both backwards; router, norms
  // and the embedding look-up left out) + 3 x attention products at their causal half.
  double train_flops = 0;
  double train_flops_mtp = 0;  // of the MTP modules, their head products included
  double forward_flops = 0;
  // The same with router and norms counted as matrices: what the benchmark programs in PyTorch print.
  double train_flops_all_parameters = 0;
  int64_t kv_bytes = 0;  // cache a token in bf16: MLA's latent and rotary key, or keys and values
};

// Forward FLOPs of one token in one layer, by what computes them; counted as above. A backward takes twice as
// many.
struct LayerCost {
  double dense = 0;      // projections of attention, dense MLPs, shared experts
  double experts = 0;    // routed ones
  double attention = 0;  // the products with keys and with values, causal half
  double up = 0;         // of `dense`: what MLA's latents are projected up by
};
LayerCost LayerCostOf(const ModelConfig& config, bool moe, int64_t sequence_length);

// sequence_length: for the attention products.
ModelCost CostOf(const ModelConfig& config, int64_t sequence_length);

}  // namespace moebius
