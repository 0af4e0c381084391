#include "core/model/cost.h"

namespace moebius {
namespace {

// Elements of one layer by kind.
struct LayerSize {
  int64_t matrices = 0;         // stored
  int64_t active_matrices = 0;  // multiplied by one token
  int64_t router = 0;
  int64_t vectors = 0;  // norms and biases
};

void AddAttention(const ModelConfig& c, LayerSize& size) {
  const int64_t d = c.hidden_size, h = c.num_attention_heads;
  int64_t matrices = 0;
  if (c.attention == AttentionKind::kMla) {
    const int64_t q_in = c.q_lora_rank > 0 ? c.q_lora_rank : d;
    matrices = d * c.q_lora_rank + q_in * h * c.qk_head_dim() + d * (c.kv_lora_rank + c.qk_rope_head_dim) +
               c.kv_lora_rank * h * (c.qk_nope_head_dim + c.v_head_dim) + h * c.v_head_dim * d;
    size.vectors += c.q_lora_rank + c.kv_lora_rank;
  } else {
    matrices = d * c.head_dim * (2 * h + 2 * c.num_key_value_heads);
    if (c.attention_bias) size.vectors += c.head_dim * (h + 2 * c.num_key_value_heads);
    if (c.qk_norm) size.vectors += 2 * c.head_dim;
  }
  size.matrices += matrices;
  size.active_matrices += matrices;
  size.vectors += 2 * d;
}

void AddMlp(const ModelConfig& c, bool moe, LayerSize& size) {
  const int64_t d = c.hidden_size;
  if (!moe) {
    size.matrices += 3 * d * c.intermediate_size;
    size.active_matrices += 3 * d * c.intermediate_size;
    return;
  }
  const int64_t expert = 3 * d * c.moe_intermediate_size;
  size.matrices += expert * (c.n_routed_experts + c.n_shared_experts);
  size.active_matrices += expert * (c.num_experts_per_tok + c.n_shared_experts);
  size.router += c.n_routed_experts * d;
  if (c.selection_bias) size.vectors += c.n_routed_experts;
}

double AttentionFlops(const ModelConfig& c, int64_t sequence_length) {
  return static_cast<double>(c.num_attention_heads) *
         static_cast<double>((c.qk_head_dim() + c.value_head_dim()) * sequence_length);
}

}  // namespace

LayerCost LayerCostOf(const ModelConfig& c, bool moe, int64_t sequence_length) {
  LayerSize size;
  AddAttention(c, size);
  AddMlp(c, moe, size);
  LayerCost out;
  if (moe)
    out.experts = 6.0 * static_cast<double>(c.hidden_size * c.moe_intermediate_size * c.num_experts_per_tok);
  out.dense = 2.0 * static_cast<double>(size.active_matrices) - out.experts;
  out.attention = AttentionFlops(c, sequence_length);
  if (c.attention == AttentionKind::kMla) {
    const int64_t up = c.q_lora_rank * c.qk_head_dim() + c.kv_lora_rank * (c.qk_nope_head_dim + c.v_head_dim);
    out.up = 2.0 * static_cast<double>(c.num_attention_heads * up);
  }
  return out;
}

ModelCost CostOf(const ModelConfig& c, int64_t sequence_length) {
  const int64_t d = c.hidden_size, head = c.vocab_size * d;
  const double attention_forward = AttentionFlops(c, sequence_length);
  ModelCost out;
  int64_t matrices = 0, others = 0;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    LayerSize size;
    AddAttention(c, size);
    AddMlp(c, c.IsMoe(l), size);
    out.parameters += size.matrices + size.router + size.vectors;
    matrices += size.active_matrices;
    others += size.router + size.vectors;
  }
  const int64_t tables = c.tie_word_embeddings ? head : 2 * head;
  out.parameters += tables + d;
  out.active = matrices + others + tables + d;
  const double attention = attention_forward * c.num_hidden_layers;
  out.forward_flops = 2.0 * (matrices + head) + attention;
  out.train_flops = 3 * out.forward_flops;
  out.train_flops_all_parameters = 6.0 * (matrices + others + head + d) + 3 * attention;
  for (int64_t k = 0; k < c.num_nextn_predict_layers; ++k) {
    LayerSize size;
    AddAttention(c, size);
    AddMlp(c, c.IsMoe(c.num_hidden_layers + k), size);
    size.matrices += 2 * d * d;
    size.active_matrices += 2 * d * d;
    size.vectors += 3 * d;
    out.mtp_parameters += size.matrices + size.router + size.vectors;
    out.mtp_active += size.active_matrices + size.router + size.vectors;
    out.train_flops_mtp += 6.0 * (size.active_matrices + head) + 3 * attention_forward;
  }
  const int64_t cached = c.attention == AttentionKind::kMla ? c.kv_lora_rank + c.qk_rope_head_dim
                                                            : 2 * c.num_key_value_heads * c.head_dim;
  out.kv_bytes = 2 * cached * c.num_hidden_layers;
  return out;
}

}  // namespace moebius
