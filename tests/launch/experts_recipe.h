// A recipe of a small model with experts, for tests of what is made of recipes.
#pragma once

#include <string>
#include <vector>

#include "core/base/check.h"
#include "launch/recipe.h"

namespace moebius {

inline constexpr const char* kExperts =
    R"(name: "t" task: GRPO tokenizer: "symbols:0123456789sort =" problems { kind: "sort" }
model { model_type: "deepseek_v3" hidden_size: 32 intermediate_size: 48 moe_intermediate_size: 16
  num_hidden_layers: 2 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 4 num_experts_per_tok: 2
  n_group: 1 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 q_lora_rank: 16 qk_rope_head_dim: 8
  qk_nope_head_dim: 8 v_head_dim: 8 max_position_embeddings: 64 }
batch { sequences: 8 sequence_length: 32 } steps: 4 balance { bias_update_speed: 0.01 })";

inline Recipe Experts(const std::vector<std::string>& sets) {
  absl::StatusOr<Recipe> recipe = Recipe::FromText(kExperts, "t.textproto", sets);
  CHECK(recipe.ok()) << std::string(recipe.status().message());
  return *std::move(recipe);
}

}  // namespace moebius
