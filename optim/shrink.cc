#include "optim/shrink.h"

#include <algorithm>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr int64_t kLayers = 8;

bool AnyMoe(const ModelConfig& config) {
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    if (config.IsMoe(l)) return true;
  }
  return false;
}

void ShrinkAttention(ModelConfig& c) {
  const bool grouped = c.num_key_value_heads < c.num_attention_heads;
  const bool single = c.num_key_value_heads == 1;
  if (c.attention == AttentionKind::kMla) {
    c.num_attention_heads = c.num_key_value_heads = 2;
    if (c.q_lora_rank > 0) c.q_lora_rank = 12;
    c.kv_lora_rank = 8;
    c.qk_nope_head_dim = 6;
    c.qk_rope_head_dim = 4;
    c.v_head_dim = 6;
    return;
  }
  c.num_attention_heads = 4;
  c.num_key_value_heads = single ? 1 : grouped ? 2 : 4;
  c.head_dim = 4;
}

// Fewer groups and choices, but as many of each that something is chosen and something is not.
void ShrinkExperts(ModelConfig& c) {
  if (c.n_routed_experts == 0) return;
  const ModelConfig from = c;
  c.n_group = from.n_group > 2 ? 4 : from.n_group;
  if (from.n_group > 1) {
    c.topk_group = std::max<int64_t>(1, from.topk_group * c.n_group / from.n_group);
    if (from.topk_group < from.n_group) c.topk_group = std::min(c.topk_group, c.n_group - 1);
  }
  c.n_routed_experts = c.n_group > 2 ? 16 : 8;
  c.num_experts_per_tok = std::min<int64_t>(from.num_experts_per_tok, 3);
  c.n_shared_experts = std::min<int64_t>(from.n_shared_experts, 2);
  c.moe_intermediate_size = 8;
}

void ShrinkLayers(ModelConfig& c) {
  const bool moe = AnyMoe(c), dense_between = !c.mlp_only_layers.empty();
  c.num_hidden_layers = kLayers;
  // Without an MoE layer in the original there need not be one here.
  c.first_k_dense_replace = moe ? std::min<int64_t>(c.first_k_dense_replace, 1)
                                : std::min<int64_t>(c.first_k_dense_replace, kLayers);
  c.decoder_sparse_step = std::min<int64_t>(c.decoder_sparse_step, moe ? 2 : kLayers + 1);
  std::erase_if(c.mlp_only_layers, [](int64_t layer) { return layer >= kLayers; });
  if (dense_between && (c.mlp_only_layers.empty() || (moe && !AnyMoe(c)))) c.mlp_only_layers = {2};
  c.num_nextn_predict_layers = std::min<int64_t>(c.num_nextn_predict_layers, 2);
}

std::vector<std::string> Changes(const ModelConfig& from, const ModelConfig& to) {
  std::vector<std::string> out;
  const auto add = [&](const char* name, int64_t before, int64_t after) {
    if (before != after) out.push_back(Concat(name, " ", before, " -> ", after));
  };
  const auto text = [](const std::vector<int64_t>& list) {
    std::string joined;
    for (const int64_t each : list) joined += Concat(joined.empty() ? "" : " ", each);
    return Concat("[", joined, "]");
  };
  add("vocab_size", from.vocab_size, to.vocab_size);
  add("hidden_size", from.hidden_size, to.hidden_size);
  add("intermediate_size", from.intermediate_size, to.intermediate_size);
  add("moe_intermediate_size", from.moe_intermediate_size, to.moe_intermediate_size);
  add("num_hidden_layers", from.num_hidden_layers, to.num_hidden_layers);
  add("num_attention_heads", from.num_attention_heads, to.num_attention_heads);
  if (to.attention == AttentionKind::kGqa) {
    add("num_key_value_heads", from.num_key_value_heads, to.num_key_value_heads);
    add("head_dim", from.head_dim, to.head_dim);
  }
  add("q_lora_rank", from.q_lora_rank, to.q_lora_rank);
  add("kv_lora_rank", from.kv_lora_rank, to.kv_lora_rank);
  add("qk_nope_head_dim", from.qk_nope_head_dim, to.qk_nope_head_dim);
  add("qk_rope_head_dim", from.qk_rope_head_dim, to.qk_rope_head_dim);
  add("v_head_dim", from.v_head_dim, to.v_head_dim);
  add("n_routed_experts", from.n_routed_experts, to.n_routed_experts);
  add("n_shared_experts", from.n_shared_experts, to.n_shared_experts);
  add("num_experts_per_tok", from.num_experts_per_tok, to.num_experts_per_tok);
  add("n_group", from.n_group, to.n_group);
  add("topk_group", from.topk_group, to.topk_group);
  add("first_k_dense_replace", from.first_k_dense_replace, to.first_k_dense_replace);
  add("decoder_sparse_step", from.decoder_sparse_step, to.decoder_sparse_step);
  if (from.mlp_only_layers != to.mlp_only_layers) {
    out.push_back(Concat("mlp_only_layers ", text(from.mlp_only_layers), " -> ", text(to.mlp_only_layers)));
  }
  add("num_nextn_predict_layers", from.num_nextn_predict_layers, to.num_nextn_predict_layers);
  add("max_position_embeddings", from.max_position_embeddings, to.max_position_embeddings);
  add("rope_scaling.original_max_position_embeddings", from.rope_scaling.original_max_position_embeddings,
      to.rope_scaling.original_max_position_embeddings);
  return out;
}

}  // namespace

absl::StatusOr<ShrunkModel> Shrink(const ModelConfig& config) {
  ModelConfig c = config;
  c.vocab_size = 40;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.max_position_embeddings = 64;
  if (c.rope_scaling.kind != RopeScalingKind::kNone) c.rope_scaling.original_max_position_embeddings = 16;
  c.bos_token_id = c.eos_token_id = -1;
  ShrinkAttention(c);
  ShrinkExperts(c);
  ShrinkLayers(c);
  // One field in config.json for both.
  if (c.model_type == "mixtral") c.intermediate_size = c.moe_intermediate_size;
  RETURN_IF_ERROR(Validate(c, "the shrunk model"));
  return ShrunkModel{.config = c, .changes = Changes(config, c)};
}

}  // namespace moebius
