#include "tests/core/generate/tiny_models.h"

#include "core/base/random.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {

std::vector<std::string> TinyNames() {
  return {"mla", "mla_plain_q_yarn", "v2_softmax", "llama", "qwen2", "qwen3", "qwen3_moe", "mixtral"};
}

ModelConfig TinyConfig(const std::string& name) {
  ModelConfig c;
  c.vocab_size = 113;
  c.hidden_size = 48;
  c.intermediate_size = 80;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.max_position_embeddings = 128;
  const bool mla = name.starts_with("mla") || name == "v2_softmax";
  const bool moe = mla || name == "qwen3_moe" || name == "mixtral";
  if (mla) {
    c.num_key_value_heads = 4;
    c.q_lora_rank = name == "mla" ? 20 : 0;
    c.kv_lora_rank = 24;
    c.qk_nope_head_dim = 12;
    c.qk_rope_head_dim = 6;
    c.v_head_dim = 10;
    c.n_shared_experts = name == "mla" ? 1 : 2;
    c.first_k_dense_replace = 1;
  } else {
    c.model_type = name;
    c.attention = AttentionKind::kGqa;
    c.num_key_value_heads = 2;
    c.head_dim = 14;
    c.scoring = Scoring::kSoftmax;
  }
  if (moe) {
    c.n_routed_experts = 8;
    c.num_experts_per_tok = 3;
    c.moe_intermediate_size = 20;
  }
  if (name == "mla") {
    c.n_group = 4;
    c.topk_group = 2;
    c.selection_bias = true;
    c.routed_scaling_factor = 2.5;
  }
  if (name == "mla_plain_q_yarn") {
    c.rope_scaling = {.kind = RopeScalingKind::kYarn,
                      .factor = 8,
                      .original_max_position_embeddings = 16,
                      .mscale_all_dim = 1};
  }
  if (name == "v2_softmax") {
    c.model_type = "deepseek_v2";
    c.scoring = Scoring::kSoftmax;
    c.norm_topk_prob = false;
  }
  if (name == "llama") {
    c.rope_scaling = {.kind = RopeScalingKind::kLlama3, .factor = 4, .original_max_position_embeddings = 32};
  }
  c.attention_bias = name == "qwen2";
  c.tie_word_embeddings = name == "qwen2" || name == "qwen3";
  c.qk_norm = name == "qwen3" || name == "qwen3_moe";
  if (name == "qwen3_moe") c.mlp_only_layers = {0};
  const absl::Status status = Validate(c, name);
  CHECK(status.ok()) << status.ToString();
  return c;
}

TinyModel::TinyModel(const ModelConfig& config, DType act) : TinyModel(config, act, NewDeviceBackend()) {}

TinyModel::TinyModel(const ModelConfig& config, DType act, std::unique_ptr<Backend> backend)
    : backend_(std::move(backend)), stream_(backend_->NewStream(StreamKind::kCompute)) {
  model_ = std::make_unique<Model>(config, *backend_, *stream_,
                                   ModelOptions{.storage = {.act = act, .training = false}});
  for (const auto& parameter : model_->parameters().all()) {
    const ParameterSpec& spec = parameter->spec();
    const RandomStream random(1, spec.name);
    std::vector<float> values(spec.shape.elements());
    // Gains around one, biases around zero, matrices such that a layer neither dies nor explodes.
    const double sigma = spec.shape.rank() == 1 ? 0.3 : 1.2 / std::sqrt(spec.shape[spec.shape.rank() - 1]);
    const double mean = spec.init == Init::kOnes ? 1 : 0;
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(mean + sigma * random.Normal(i));
    SetParameter(*backend_, *stream_, *parameter, 0, values);
  }
}

void TinyModel::Forward(const std::vector<int32_t>& ids, Microbatch& microbatch, Arena& scratch) {
  const int32_t starts[] = {0, static_cast<int32_t>(ids.size())};
  microbatch.LoadRagged(*stream_, ids, starts);
  model_->Forward({*backend_, *stream_, scratch}, {.gradients = false}, microbatch);
}

std::vector<float> TinyModel::Logits(const std::vector<int32_t>& ids) {
  Microbatch microbatch(*backend_, model_->num_slots());
  Arena scratch(*backend_);
  Forward(ids, microbatch, scratch);
  Tensor logits(*backend_, DType::kF32, {1, model_->config().vocab_size});
  model_->head().Logits({*backend_, *stream_, scratch}, microbatch.hidden.Rows(std::ssize(ids) - 1, 1),
                        logits);
  std::vector<float> out(model_->config().vocab_size);
  backend_->CopyToHost(*stream_, logits, out.data());
  stream_->Synchronize();
  return out;
}

std::vector<float> TinyModel::LogProbs(const std::vector<int32_t>& ids) {
  Microbatch microbatch(*backend_, model_->num_slots());
  Arena scratch(*backend_);
  Forward(ids, microbatch, scratch);
  std::vector<float> losses(ids.size());
  backend_->CopyToHost(*stream_, microbatch.losses, losses.data());
  stream_->Synchronize();
  losses.pop_back();
  for (float& loss : losses) loss = -loss;
  return losses;
}

std::vector<int32_t> RandomIds(const std::string& name, int64_t count, int64_t vocab) {
  const RandomStream random(2, name);
  std::vector<int32_t> ids(count);
  for (int64_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>(random.Below(i, vocab));
  return ids;
}

}  // namespace moebius
