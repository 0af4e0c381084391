#include "tests/optim/training.h"

#include "core/base/random.h"

namespace moebius {

ModelConfig TinyConfig() {
  ModelConfig c;
  c.vocab_size = 40;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.moe_intermediate_size = 8;
  c.num_hidden_layers = 2;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.q_lora_rank = 12;
  c.kv_lora_rank = 8;
  c.qk_nope_head_dim = 6;
  c.qk_rope_head_dim = 4;
  c.v_head_dim = 6;
  c.n_routed_experts = 8;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.n_group = 2;
  c.topk_group = 1;
  c.selection_bias = true;
  c.first_k_dense_replace = 1;
  c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 64;
  return c;
}

Training::Training(const TrainConfig& config, int threads, uint64_t seed, DType act)
    : backend(MakeCpuBackend({.threads = threads})), stream(backend->NewStream(StreamKind::kCompute)) {
  ModelOptions options;
  options.storage = {.act = act, .training = true};
  trainer = *Trainer::New(*world, *backend, *stream, TinyConfig(), options, {}, config);
  model = &trainer->model();
  model->parameters().Initialize(*backend, *stream, seed, 0.1f);
  trainer->optimizer().ResetEma(trainer->context());
}

StepMetrics Training::Step(int64_t index) {
  constexpr int64_t kSequences = 4, kLength = 16;
  const RandomStream random(7, "tokens");
  std::vector<int32_t> tokens(kSequences * (kLength + 1));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(random.Below(index * tokens.size() + i, model->config().vocab_size));
  }
  return *trainer->Step(
      {.tokens = tokens, .sequences = kSequences, .length = kLength, .document_starts = {}});
}

std::vector<float> Training::Weights() const {
  std::vector<float> all;
  for (const auto& parameter : model->parameters().all()) {
    const std::vector<float> values =
        GetParameter(*backend, *stream, *parameter, 0, parameter->shape().elements());
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace moebius
