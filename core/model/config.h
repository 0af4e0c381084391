// What a model is: sizes and choices, one plain value for every family. Field names are those of Hugging
// Face's DeepseekV3Config where one exists. Made from a recipe's model section or a config.json; checked by
// Validate.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend/kernel_args.h"
#include "core/base/status.h"
#include "core/layers/rotary.h"

namespace moebius {

namespace proto {
class Model;
}

enum class AttentionKind { kMla, kGqa };

struct ModelConfig {
  std::string model_type = "deepseek_v3";  // decides names in checkpoints
  AttentionKind attention = AttentionKind::kMla;

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;      // of dense MLPs
  int64_t moe_intermediate_size = 0;  // of one expert
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // GQA
  int64_t head_dim = 0;             // GQA

  int64_t q_lora_rank = 0;  // MLA; 0: a plain q_proj
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;

  int64_t n_routed_experts = 0;  // 0: every MLP is dense
  int64_t n_shared_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t n_group = 1;
  int64_t topk_group = 1;
  double routed_scaling_factor = 1;
  bool norm_topk_prob = true;
  Scoring scoring = Scoring::kSigmoid;
  bool selection_bias = false;  // e_score_correction_bias
  int64_t first_k_dense_replace = 0;
  int64_t decoder_sparse_step = 1;       // Qwen3-MoE: layer l is MoE if (l + 1) % step == 0 ...
  std::vector<int64_t> mlp_only_layers;  // ... and not in this list

  int64_t num_nextn_predict_layers = 0;  // MTP modules

  int64_t max_position_embeddings = 4096;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // on q, k, v (Qwen2)
  bool qk_norm = false;         // Qwen3
  double initializer_range = 0.02;
  int64_t bos_token_id = -1;  // -1: none
  int64_t eos_token_id = -1;

  bool IsMoe(
      int64_t layer) const;  // layers from num_hidden_layers on are MTP modules: MoE where any layer is
  int64_t NumMoe(int64_t layers) const;  // MoE layers among the first `layers`
  int64_t qk_head_dim() const {          // of one head
    return attention == AttentionKind::kMla ? qk_nope_head_dim + qk_rope_head_dim : head_dim;
  }
  int64_t value_head_dim() const { return attention == AttentionKind::kMla ? v_head_dim : head_dim; }
  int64_t rope_dim() const { return attention == AttentionKind::kMla ? qk_rope_head_dim : head_dim; }
  float attention_scale() const;  // of the scores, YaRN's factor included
  RouterSpec router() const;
};

// All contradictions and missing sizes at once, as UsageError; `source` names where the config came from.
absl::Status Validate(const ModelConfig& config, const std::string& source);

// kUnavailable for a router that `backend` (its name) has no kernels for.
absl::Status CheckRouter(const ModelConfig& config, const RouterLimits& limits, const std::string& backend);

// The families that we read, write and train.
std::vector<std::string> ModelTypes();

// From a recipe's `model { ... }`; unset fields take the family's defaults.
absl::StatusOr<ModelConfig> ConfigFromProto(const proto::Model& model);

// The same as a recipe's model section, every field set.
void ConfigToProto(const ModelConfig& config, proto::Model* model);

// From the text of a config.json: the released form (rope_theta, rope_scaling, torch_dtype) and the newer one
// (rope_parameters, dtype). `source` is the path for messages. Anything that would change the mathematics and
// is not supported is an error, never ignored.
absl::StatusOr<ModelConfig> ConfigFromJson(const std::string& text, const std::string& source);
// The config.json of a checkpoint, in the released form, which every reader takes. dtype: "float32",
// "bfloat16".
std::string ConfigToJson(const ModelConfig& config, const std::string& dtype);

}  // namespace moebius
