#include "core/model/config.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/base/nearest.h"
#include "core/base/strings.h"
#include "core/model/model.pb.h"

namespace moebius {

bool ModelConfig::IsMoe(int64_t layer) const {
  if (n_routed_experts == 0) return false;
  if (layer >= num_hidden_layers) return true;
  if (layer < first_k_dense_replace) return false;
  if (std::find(mlp_only_layers.begin(), mlp_only_layers.end(), layer) != mlp_only_layers.end()) return false;
  return (layer + 1) % decoder_sparse_step == 0;
}

int64_t ModelConfig::NumMoe(int64_t layers) const {
  int64_t n = 0;
  for (int64_t l = 0; l < layers; ++l) n += IsMoe(l) ? 1 : 0;
  return n;
}

float ModelConfig::attention_scale() const {
  double scale = 1 / std::sqrt(static_cast<double>(qk_head_dim()));
  if (attention == AttentionKind::kMla && rope_scaling.kind == RopeScalingKind::kYarn &&
      rope_scaling.mscale_all_dim != 0) {
    const double m = YarnMscale(rope_scaling.factor, rope_scaling.mscale_all_dim);
    scale *= m * m;
  }
  return static_cast<float>(scale);
}

RouterSpec ModelConfig::router() const {
  return {.scoring = scoring,
          .num_groups = n_group,
          .top_groups = topk_group,
          .top_k = num_experts_per_tok,
          .normalize = norm_topk_prob,
          .scale = static_cast<float>(routed_scaling_factor)};
}

std::vector<std::string> ModelTypes() {
  return {"deepseek_v3", "deepseek_v2", "qwen3_moe", "mixtral", "llama", "qwen2", "qwen3"};
}

namespace {

class Problems {
 public:
  void Require(bool ok, const std::string& what) {
    if (!ok) list_.push_back(what);
  }
  void Range(const std::string& field, int64_t value, int64_t low, int64_t high) {
    Require(value >= low && value <= high, Concat(field, " = ", value, " must be in ", low, "..", high));
  }
  const std::vector<std::string>& list() const { return list_; }

 private:
  std::vector<std::string> list_;
};

constexpr int64_t kMaxWidth = int64_t{1} << 20;

void CheckAttention(const ModelConfig& c, Problems& p) {
  p.Range("num_attention_heads", c.num_attention_heads, 1, 4096);
  if (c.attention == AttentionKind::kMla) {
    p.Range("q_lora_rank", c.q_lora_rank, 0, kMaxWidth);
    p.Range("kv_lora_rank", c.kv_lora_rank, 1, kMaxWidth);
    p.Range("qk_nope_head_dim", c.qk_nope_head_dim, 1, 4096);
    p.Range("qk_rope_head_dim", c.qk_rope_head_dim, 2, 4096);
    p.Range("v_head_dim", c.v_head_dim, 1, 4096);
  } else {
    p.Range("num_key_value_heads", c.num_key_value_heads, 1, 4096);
    p.Range("head_dim", c.head_dim, 2, 4096);
    p.Require(c.num_key_value_heads < 1 || c.num_attention_heads % c.num_key_value_heads == 0,
              Concat("num_attention_heads = ", c.num_attention_heads,
                     " must be a multiple of num_key_value_heads = ", c.num_key_value_heads));
  }
  p.Require(c.rope_dim() % 2 == 0, Concat("the rotary dimension ", c.rope_dim(), " must be even"));
}

void CheckExperts(const ModelConfig& c, Problems& p) {
  p.Range("n_routed_experts", c.n_routed_experts, 0, 65536);
  p.Range("num_nextn_predict_layers", c.num_nextn_predict_layers, 0, 16);
  if (c.n_routed_experts <= 0) return;
  p.Range("moe_intermediate_size", c.moe_intermediate_size, 1, kMaxWidth);
  p.Range("n_shared_experts", c.n_shared_experts, 0, 1024);
  p.Range("num_experts_per_tok", c.num_experts_per_tok, 1, c.n_routed_experts);
  p.Range("n_group", c.n_group, 1, c.n_routed_experts);
  p.Range("topk_group", c.topk_group, 1, std::max<int64_t>(c.n_group, 1));
  p.Range("decoder_sparse_step", c.decoder_sparse_step, 1, 4096);
  if (c.n_group < 1) return;
  p.Require(c.n_routed_experts % c.n_group == 0, Concat("n_routed_experts = ", c.n_routed_experts,
                                                        " must be a multiple of n_group = ", c.n_group));
  const int64_t in_groups = c.n_routed_experts / c.n_group * c.topk_group;
  p.Require(c.num_experts_per_tok <= in_groups,
            Concat("num_experts_per_tok = ", c.num_experts_per_tok, " exceeds the ", in_groups,
                   " experts of topk_group = ", c.topk_group, " groups"));
  p.Require(c.scoring != Scoring::kSigmoid || c.n_group == 1 || c.n_routed_experts / c.n_group >= 2,
            "groups need two experts or more (their two best scores rank them)");
}

// Where wavelengths are stretched: betas and factors in another order divide by zero.
void CheckScaling(const RopeScaling& s, Problems& p) {
  if (s.kind == RopeScalingKind::kYarn) {
    p.Require(s.beta_slow > 0 && s.beta_fast > s.beta_slow && std::isfinite(s.beta_fast),
              Concat("rope_scaling.beta_fast = ", s.beta_fast, " must be above beta_slow = ", s.beta_slow,
                     ", and that above 0"));
  } else {
    p.Require(
        s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor && std::isfinite(s.high_freq_factor),
        Concat("rope_scaling.high_freq_factor = ", s.high_freq_factor,
               " must be above low_freq_factor = ", s.low_freq_factor, ", and that above 0"));
  }
}

// From above, so that exact counts do not overflow.
double RoughParameters(const ModelConfig& c) {
  const auto d = static_cast<double>(c.hidden_size), heads = static_cast<double>(c.num_attention_heads);
  const double lora = static_cast<double>(c.q_lora_rank) + static_cast<double>(c.kv_lora_rank);
  const double head =
      static_cast<double>(c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim + 4 * c.head_dim);
  const double experts = static_cast<double>(c.n_routed_experts + c.n_shared_experts + 1);
  const double mlp =
      3 * d *
      (static_cast<double>(c.intermediate_size) + experts * static_cast<double>(c.moe_intermediate_size + 1));
  const double layer = 2 * d * lora + heads * head * (lora + 2 * d) + mlp + 4 * d * d;
  return layer * static_cast<double>(c.num_hidden_layers + c.num_nextn_predict_layers) +
         2 * static_cast<double>(c.vocab_size) * d;
}

absl::Status Report(const Problems& p, const std::string& source) {
  if (p.list().empty()) return absl::OkStatus();
  return UsageError(
      Concat(source, ": the model cannot be built; ", Join(p.list(), "; "), "; correct these fields"));
}

// What config.json of a family cannot say, or transformers would read otherwise: such a checkpoint would lie.
void CheckFamily(const ModelConfig& c, Problems& p) {
  const std::string& type = c.model_type;
  const bool v3 = type == "deepseek_v3", v2 = type == "deepseek_v2";
  const bool gqa_experts = type == "qwen3_moe" || type == "mixtral";
  const auto fixed = [&](bool ok, const std::string& what) { p.Require(ok, Concat(what, " in ", type)); };
  fixed(c.attention_bias == (type == "qwen2"),
        Concat("attention_bias must be ", type == "qwen2" ? "true" : "false"));
  const bool qk_norm = type == "qwen3" || type == "qwen3_moe";
  fixed(c.qk_norm == qk_norm, Concat("qk_norm must be ", qk_norm ? "true" : "false"));
  if (!v3 && !v2) {
    fixed(gqa_experts || c.n_routed_experts == 0, "n_routed_experts must be 0");
    fixed(c.n_shared_experts == 0, "n_shared_experts must be 0");
    fixed(c.first_k_dense_replace == 0, "first_k_dense_replace must be 0");
    fixed(c.n_group == 1 && c.topk_group == 1, "n_group and topk_group must be 1");
    fixed(c.routed_scaling_factor == 1, "routed_scaling_factor must be 1");
    fixed(c.num_nextn_predict_layers == 0, "num_nextn_predict_layers must be 0");
    fixed(c.scoring == Scoring::kSoftmax, "scoring_func must be \"softmax\"");
  }
  if (c.n_routed_experts == 0) return;
  fixed(c.scoring == (v3 ? Scoring::kSigmoid : Scoring::kSoftmax),
        Concat("scoring_func must be \"", v3 ? "sigmoid" : "softmax", "\""));
  fixed(!v2 || !c.norm_topk_prob, "norm_topk_prob must be false");
  fixed(type != "mixtral" || c.norm_topk_prob, "norm_topk_prob must be true");
  fixed(type != "mixtral" || c.moe_intermediate_size == c.intermediate_size,
        "moe_intermediate_size must equal intermediate_size");
}

}  // namespace

absl::Status Validate(const ModelConfig& c, const std::string& source) {
  Problems p;
  p.Range("vocab_size", c.vocab_size, 1, int64_t{1} << 24);
  p.Range("hidden_size", c.hidden_size, 1, kMaxWidth);
  p.Range("num_hidden_layers", c.num_hidden_layers, 1, 4096);
  p.Range("max_position_embeddings", c.max_position_embeddings, 1, int64_t{1} << 24);
  p.Require(c.rope_theta > 1, Concat("rope_theta = ", c.rope_theta, " must be above 1"));
  p.Require(c.rms_norm_eps > 0 && c.rms_norm_eps < 1,
            Concat("rms_norm_eps = ", c.rms_norm_eps, " must be in (0, 1)"));
  p.Require(c.initializer_range >= 0,
            Concat("initializer_range = ", c.initializer_range, " must not be negative"));
  CheckAttention(c, p);
  CheckExperts(c, p);
  bool any_dense = c.n_routed_experts == 0;
  const int64_t layers = c.decoder_sparse_step < 1 ? 0 : std::min<int64_t>(c.num_hidden_layers, 4096);
  for (int64_t l = 0; l < layers; ++l) any_dense |= !c.IsMoe(l);
  if (any_dense) p.Range("intermediate_size", c.intermediate_size, 1, kMaxWidth);
  if (c.rope_scaling.kind != RopeScalingKind::kNone) {
    p.Require(c.rope_scaling.factor >= 1,
              Concat("rope_scaling.factor = ", c.rope_scaling.factor, " must be 1 or more"));
    p.Require(c.rope_scaling.original_max_position_embeddings > 0,
              "rope_scaling.original_max_position_embeddings must be given");
    CheckScaling(c.rope_scaling, p);
  }
  for (const auto& [field, id] :
       {std::pair("bos_token_id", c.bos_token_id), {"eos_token_id", c.eos_token_id}}) {
    p.Require(id < c.vocab_size, Concat(field, " = ", id, " is outside the vocabulary of ", c.vocab_size));
  }
  p.Require(RoughParameters(c) < 0x1p60, "the model would have more than 10^18 parameters");
  return Report(p, source);
}

absl::Status CheckRouter(const ModelConfig& config, const RouterLimits& limits, const std::string& backend) {
  for (const auto& [field, value, most] :
       {std::tuple("n_routed_experts", config.n_routed_experts, limits.experts),
        std::tuple("num_experts_per_tok", config.num_experts_per_tok, limits.top_k)}) {
    if (config.n_routed_experts == 0 || value <= most) continue;
    return UnavailableError(Concat("model.", field, " is ", value, "; the router of ", backend, " takes ",
                                   most, " at most; lower it, or run on the CPU, which takes any"));
  }
  return absl::OkStatus();
}

namespace {

absl::StatusOr<RopeScaling> ScalingFromProto(const proto::RopeScaling& in) {
  RopeScaling out;
  if (in.rope_type() == "yarn") {
    out.kind = RopeScalingKind::kYarn;
  } else if (in.rope_type() == "llama3") {
    out.kind = RopeScalingKind::kLlama3;
  } else {
    return UsageError(Concat("model.rope_scaling.rope_type = \"", Printable(in.rope_type()),
                             "\" is unknown; use \"yarn\" or \"llama3\""));
  }
  if (in.has_factor()) out.factor = in.factor();
  if (in.has_original_max_position_embeddings())
    out.original_max_position_embeddings = in.original_max_position_embeddings();
  if (in.has_beta_fast()) out.beta_fast = in.beta_fast();
  if (in.has_beta_slow()) out.beta_slow = in.beta_slow();
  if (in.has_mscale()) out.mscale = in.mscale();
  if (in.has_mscale_all_dim()) out.mscale_all_dim = in.mscale_all_dim();
  if (in.has_low_freq_factor()) out.low_freq_factor = in.low_freq_factor();
  if (in.has_high_freq_factor()) out.high_freq_factor = in.high_freq_factor();
  return out;
}

// What a family fixes and what it assumes when a recipe says nothing.
void ApplyFamily(const std::string& type, ModelConfig& c) {
  c.model_type = type;
  const bool deepseek = type == "deepseek_v3" || type == "deepseek_v2";
  c.attention = deepseek ? AttentionKind::kMla : AttentionKind::kGqa;
  c.scoring = type == "deepseek_v3" ? Scoring::kSigmoid : Scoring::kSoftmax;
  c.norm_topk_prob = type != "deepseek_v2";
  c.attention_bias = type == "qwen2";
  c.qk_norm = type == "qwen3" || type == "qwen3_moe";
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigFromProto(const proto::Model& m) {
  const std::string& type = m.model_type();
  const std::vector<std::string> types = ModelTypes();
  if (std::find(types.begin(), types.end(), type) == types.end()) {
    const std::string near = Nearest(type, types);
    return UsageError(Concat("model.model_type = \"", Printable(type), "\" is unknown; ",
                             near.empty() ? "known: " + Join(types) : "did you mean \"" + near + "\"?"));
  }
  ModelConfig c;
  ApplyFamily(type, c);
#define MOEBIUS_TAKE(field) \
  if (m.has_##field()) c.field = m.field()
  MOEBIUS_TAKE(vocab_size);
  MOEBIUS_TAKE(hidden_size);
  MOEBIUS_TAKE(intermediate_size);
  MOEBIUS_TAKE(moe_intermediate_size);
  MOEBIUS_TAKE(num_hidden_layers);
  MOEBIUS_TAKE(num_attention_heads);
  MOEBIUS_TAKE(num_key_value_heads);
  MOEBIUS_TAKE(head_dim);
  MOEBIUS_TAKE(n_shared_experts);
  MOEBIUS_TAKE(n_routed_experts);
  MOEBIUS_TAKE(num_experts_per_tok);
  MOEBIUS_TAKE(n_group);
  MOEBIUS_TAKE(topk_group);
  MOEBIUS_TAKE(routed_scaling_factor);
  MOEBIUS_TAKE(norm_topk_prob);
  MOEBIUS_TAKE(first_k_dense_replace);
  MOEBIUS_TAKE(kv_lora_rank);
  MOEBIUS_TAKE(q_lora_rank);
  MOEBIUS_TAKE(qk_rope_head_dim);
  MOEBIUS_TAKE(qk_nope_head_dim);
  MOEBIUS_TAKE(v_head_dim);
  MOEBIUS_TAKE(num_nextn_predict_layers);
  MOEBIUS_TAKE(max_position_embeddings);
  MOEBIUS_TAKE(rope_theta);
  MOEBIUS_TAKE(rms_norm_eps);
  MOEBIUS_TAKE(tie_word_embeddings);
  MOEBIUS_TAKE(attention_bias);
  MOEBIUS_TAKE(qk_norm);
  MOEBIUS_TAKE(initializer_range);
  MOEBIUS_TAKE(bos_token_id);
  MOEBIUS_TAKE(eos_token_id);
  MOEBIUS_TAKE(decoder_sparse_step);
#undef MOEBIUS_TAKE
  c.mlp_only_layers.assign(m.mlp_only_layers().begin(), m.mlp_only_layers().end());
  if (m.has_scoring_func()) {
    if (m.scoring_func() != "sigmoid" && m.scoring_func() != "softmax") {
      return UsageError(Concat("model.scoring_func = \"", Printable(m.scoring_func()),
                               "\" is unknown; use \"sigmoid\" or \"softmax\""));
    }
    c.scoring = m.scoring_func() == "sigmoid" ? Scoring::kSigmoid : Scoring::kSoftmax;
  }
  c.selection_bias = type == "deepseek_v3" && c.n_routed_experts > 0;
  if (m.has_rope_scaling()) {
    ASSIGN_OR_RETURN(c.rope_scaling, ScalingFromProto(m.rope_scaling()));
  }
  if (c.attention == AttentionKind::kMla) c.num_key_value_heads = c.num_attention_heads;
  if (c.num_key_value_heads == 0) c.num_key_value_heads = c.num_attention_heads;
  if (c.head_dim == 0 && c.num_attention_heads > 0) c.head_dim = c.hidden_size / c.num_attention_heads;
  if (type == "mixtral" && c.moe_intermediate_size == 0) c.moe_intermediate_size = c.intermediate_size;
  RETURN_IF_ERROR(Validate(c, "model"));
  Problems problems;
  CheckFamily(c, problems);
  RETURN_IF_ERROR(Report(problems, "model"));
  return c;
}

void ConfigToProto(const ModelConfig& c, proto::Model* m) {
#define MOEBIUS_PUT(field) m->set_##field(c.field)
  MOEBIUS_PUT(model_type);
  MOEBIUS_PUT(vocab_size);
  MOEBIUS_PUT(hidden_size);
  MOEBIUS_PUT(intermediate_size);
  MOEBIUS_PUT(moe_intermediate_size);
  MOEBIUS_PUT(num_hidden_layers);
  MOEBIUS_PUT(num_attention_heads);
  MOEBIUS_PUT(num_key_value_heads);
  MOEBIUS_PUT(head_dim);
  MOEBIUS_PUT(n_shared_experts);
  MOEBIUS_PUT(n_routed_experts);
  MOEBIUS_PUT(num_experts_per_tok);
  MOEBIUS_PUT(n_group);
  MOEBIUS_PUT(topk_group);
  MOEBIUS_PUT(routed_scaling_factor);
  MOEBIUS_PUT(norm_topk_prob);
  MOEBIUS_PUT(first_k_dense_replace);
  MOEBIUS_PUT(kv_lora_rank);
  MOEBIUS_PUT(q_lora_rank);
  MOEBIUS_PUT(qk_rope_head_dim);
  MOEBIUS_PUT(qk_nope_head_dim);
  MOEBIUS_PUT(v_head_dim);
  MOEBIUS_PUT(num_nextn_predict_layers);
  MOEBIUS_PUT(max_position_embeddings);
  MOEBIUS_PUT(rope_theta);
  MOEBIUS_PUT(rms_norm_eps);
  MOEBIUS_PUT(tie_word_embeddings);
  MOEBIUS_PUT(attention_bias);
  MOEBIUS_PUT(qk_norm);
  MOEBIUS_PUT(initializer_range);
  MOEBIUS_PUT(bos_token_id);
  MOEBIUS_PUT(eos_token_id);
  MOEBIUS_PUT(decoder_sparse_step);
#undef MOEBIUS_PUT
  m->set_scoring_func(c.scoring == Scoring::kSigmoid ? "sigmoid" : "softmax");
  for (const int64_t layer : c.mlp_only_layers) m->add_mlp_only_layers(layer);
  if (c.rope_scaling.kind == RopeScalingKind::kNone) return;
  proto::RopeScaling* r = m->mutable_rope_scaling();
  r->set_rope_type(c.rope_scaling.kind == RopeScalingKind::kYarn ? "yarn" : "llama3");
  r->set_factor(c.rope_scaling.factor);
  r->set_original_max_position_embeddings(c.rope_scaling.original_max_position_embeddings);
  r->set_beta_fast(c.rope_scaling.beta_fast);
  r->set_beta_slow(c.rope_scaling.beta_slow);
  r->set_mscale(c.rope_scaling.mscale);
  r->set_mscale_all_dim(c.rope_scaling.mscale_all_dim);
  r->set_low_freq_factor(c.rope_scaling.low_freq_factor);
  r->set_high_freq_factor(c.rope_scaling.high_freq_factor);
}

}  // namespace moebius
