#include "tests/core/model/tiny_models.h"

#include <cmath>

#include "core/base/random.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"

namespace moebius {
namespace {

ModelConfig TinyDeepSeek(bool v3) {
  ModelConfig c;
  c.model_type = v3 ? "deepseek_v3" : "deepseek_v2";
  c.attention = AttentionKind::kMla;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.q_lora_rank = 10;
  c.kv_lora_rank = 8;
  c.qk_nope_head_dim = 6;
  c.qk_rope_head_dim = 4;
  c.v_head_dim = 6;
  c.n_routed_experts = 6;
  c.n_shared_experts = v3 ? 1 : 2;
  c.num_experts_per_tok = 2;
  c.n_group = v3 ? 3 : 1;
  c.topk_group = v3 ? 2 : 1;
  c.routed_scaling_factor = v3 ? 2.5 : 1;
  c.norm_topk_prob = v3;
  c.scoring = v3 ? Scoring::kSigmoid : Scoring::kSoftmax;
  c.selection_bias = v3;
  c.first_k_dense_replace = 1;
  return c;
}

ModelConfig TinyGqa(const std::string& type) {
  ModelConfig c;
  c.model_type = type;
  c.attention = AttentionKind::kGqa;
  c.scoring = Scoring::kSoftmax;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = type == "qwen3" ? 6 : 4;
  c.attention_bias = type == "qwen2";
  c.qk_norm = type == "qwen3" || type == "qwen3_moe";
  c.tie_word_embeddings = type == "qwen2" || type == "qwen3";
  if (type == "mixtral" || type == "qwen3_moe") {
    c.n_routed_experts = 4;
    c.num_experts_per_tok = 2;
    if (type == "qwen3_moe") c.mlp_only_layers = {0};
  }
  return c;
}

}  // namespace

std::vector<std::string> TinyNames() {
  return {"deepseek_v3", "deepseek_v3_mtp", "deepseek_v2", "qwen3_moe", "mixtral", "llama", "qwen2", "qwen3"};
}

ModelConfig TinyConfig(const std::string& name) {
  ModelConfig c = name == "deepseek_v3" || name == "deepseek_v3_mtp" ? TinyDeepSeek(true)
                  : name == "deepseek_v2"                            ? TinyDeepSeek(false)
                                                                     : TinyGqa(name);
  c.vocab_size = kTinyVocab;
  c.hidden_size = 16;
  c.intermediate_size = name == "mixtral" ? 10 : 20;
  c.moe_intermediate_size = c.n_routed_experts > 0 ? 10 : 0;
  c.num_hidden_layers = 3;
  c.max_position_embeddings = 32;
  c.rope_theta = 100;
  if (name == "deepseek_v3_mtp") {
    c.q_lora_rank = 0;
    c.num_hidden_layers = 2;
    c.num_nextn_predict_layers = 2;
    c.tie_word_embeddings = true;
  }
  const absl::Status status = Validate(c, name);
  CHECK(status.ok()) << std::string(status.message());
  return c;
}

std::vector<int32_t> TinyTokens(int64_t sequences, int64_t length) {
  const RandomStream random(31, "tokens");
  std::vector<int32_t> out(sequences * (length + 1));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int32_t>(random.Below(i, kTinyVocab));
  return out;
}

TinyModel::TinyModel(const ModelConfig& config, ModelOptions options)
    : model(config, bench.backend(), bench.stream(), options) {
  // By piece, so that a stage has the values of the whole model.
  for (const auto& parameter : model.parameters().all()) {
    for (const Piece& piece : parameter->spec().pieces) {
      const int64_t n = piece.shape.elements();
      const bool matrix = piece.shape.rank() >= 2;
      const double columns = static_cast<double>(piece.shape[piece.shape.rank() - 1]);
      std::vector<float> values = Normals(piece.name, n, matrix ? 1.2 / std::sqrt(columns) : 0.2);
      if (parameter->spec().init == Init::kOnes) {
        for (float& value : values) value += 1;
      }
      SetParameter(bench.backend(), bench.stream(), *parameter, piece.offset, values);
    }
  }
}

Objective FullObjective(const ModelConfig& config, int64_t sequences, int64_t length) {
  Objective objective;
  const float tokens = static_cast<float>(sequences * length);
  objective.token_scale = 1 / tokens;
  if (config.num_nextn_predict_layers > 0) {
    objective.mtp_scale = 0.3f / static_cast<float>(config.num_nextn_predict_layers) / tokens;
  }
  if (config.n_routed_experts > 0) {
    objective.balance = {.sequence = 0.05f / sequences, .auxiliary = 0.03f / sequences, .z = 0.01f / tokens};
  }
  objective.recompute = {.norms = false, .mla_up = false, .swiglu = false, .blocks = false};
  return objective;
}

double ObjectiveValue(Bench& bench, const Objective& objective, const Microbatch& mb) {
  double value = objective.token_scale * SumLosses(bench.backend(), bench.stream(), mb.losses);
  if (objective.mtp_scale != 0) {
    for (const Microbatch::Depth& depth : mb.depths) {
      value += objective.mtp_scale * SumLosses(bench.backend(), bench.stream(), depth.losses);
    }
  }
  for (const RoutingStatistics& layer : ReadRouting(bench.backend(), bench.stream(), mb)) {
    value += objective.balance.sequence * layer.balance_loss_sum + objective.balance.z * layer.z_sum +
             objective.balance.auxiliary * layer.auxiliary_loss_sum;
  }
  return value;
}

std::vector<NamedGradient> GradientsOf(TinyModel& tiny) {
  std::vector<NamedGradient> out;
  for (const auto& parameter : tiny.model.parameters().all()) {
    if (parameter->grad()) out.push_back({parameter->name(), tiny.bench.Read(parameter->grad())});
  }
  return out;
}

void ZeroGradients(TinyModel& tiny) {
  for (const auto& parameter : tiny.model.parameters().all()) {
    if (parameter->grad()) tiny.bench.backend().Zero(tiny.bench.stream(), parameter->grad());
  }
}

void ExpectSameGradients(const std::vector<NamedGradient>& got, const std::vector<NamedGradient>& want,
                         double tolerance, const std::string& when) {
  ASSERT_EQ(got.size(), want.size()) << when;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].name, want[i].name) << when;
    const double distance = RelativeDistance(got[i].values, want[i].values);
    if (tolerance == 0) {
      EXPECT_EQ(got[i].values, want[i].values)
          << when << ": " << got[i].name << ", relative distance " << distance;
    } else {
      EXPECT_LE(distance, tolerance) << when << ": " << got[i].name;
    }
  }
}

}  // namespace moebius
