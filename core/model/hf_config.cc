// config.json of Hugging Face checkpoints, both ways. Released files carry rope_theta and rope_scaling,
// transformers 5 writes rope_parameters; both are read, the released form is written.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/nearest.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "core/model/config.h"

namespace moebius {
namespace {

using nlohmann::json;

// Reads fields of one object; the first error sticks.
class Fields {
 public:
  Fields(const json& object, const std::string& source) : object_(object), source_(source) {}

  void Take(const char* field, int64_t& out, int64_t low = 0) {
    if (!Has(field)) return;
    Keep(GetInt(object_, field, source_, low, int64_t{1} << 40), out);
  }
  void Take(const char* field, double& out) {
    if (Has(field)) Keep(GetDouble(object_, field, source_), out);
  }
  // null is no: what transformers makes of it, whose default is another where the field is absent.
  void Take(const char* field, bool& out) {
    if (HasKey(field) && !Has(field)) out = false;
    if (Has(field)) Keep(GetBool(object_, field, source_), out);
  }
  std::string Text(const char* field, const std::string& otherwise) {
    std::string out = otherwise;
    if (Has(field)) Keep(GetString(object_, field, source_), out);
    return out;
  }
  void Need(const char* field) {
    if (status_.ok() && !Has(field))
      status_ = DamagedError(Concat(source_, ": field \"", field, "\" is missing"));
  }
  // A choice that changes the mathematics: anything but `supported` is refused.
  void Refuse(bool wrong, const std::string& what) {
    if (status_.ok() && wrong)
      status_ = UsageError(Concat(source_, ": ", what, " is not supported; use a model without it"));
  }
  // Present, though it may be null ("no experts").
  bool HasKey(const char* field) const { return object_.contains(field); }
  bool Has(const char* field) const { return HasJsonField(object_, field); }
  const json& operator[](const char* field) const { return object_.at(field); }
  const absl::Status& status() const { return status_; }
  void Fail(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }

 private:
  template <typename T>
  void Keep(absl::StatusOr<T> value, T& out) {
    if (value.ok()) {
      out = *std::move(value);
    } else if (status_.ok()) {
      status_ = value.status();
    }
  }

  const json& object_;
  const std::string& source_;
  absl::Status status_;
};

// What of an object of RoPE settings both spellings have: without theta, which the older one keeps outside.
json ScalingIn(const json& object, const char* name) {
  json scaling = object.at(name);
  if (!scaling.is_object()) return scaling;
  scaling.erase("rope_theta");
  if (scaling.contains("type")) scaling.emplace("rope_type", scaling["type"]);
  scaling.erase("type");
  scaling.emplace("rope_type", "default");
  return scaling;
}

absl::Status ReadRope(const json& object, const std::string& source, ModelConfig& c) {
  // rope_parameters holds theta and scaling together; the older pair keeps them apart.
  const bool older = HasJsonField(object, "rope_scaling"), newer = HasJsonField(object, "rope_parameters");
  const char* name = newer ? "rope_parameters" : "rope_scaling";
  if (!older && !newer) return absl::OkStatus();
  if (older && newer && ScalingIn(object, "rope_scaling") != ScalingIn(object, "rope_parameters")) {
    return UsageError(Concat(source,
                             ": rope_scaling and rope_parameters say different things, and versions of "
                             "transformers read one or the other; remove the one that is not meant"));
  }
  const json& scaling = object.at(name);
  if (!scaling.is_object())
    return DamagedError(
        Concat(source, ": field \"", name, "\" is ", DescribeJson(scaling), ", expected an object"));
  const std::string inner = Concat(source, ": ", name);
  Fields f(scaling, inner);
  f.Take("rope_theta", c.rope_theta);
  std::string type = f.Text("rope_type", f.Text("type", "default"));
  RopeScaling& s = c.rope_scaling;
  if (type == "yarn") {
    s.kind = RopeScalingKind::kYarn;
  } else if (type == "llama3") {
    s.kind = RopeScalingKind::kLlama3;
  } else if (type != "default") {
    return UsageError(Concat(inner, ".rope_type \"", Printable(type),
                             "\" is not supported; supported: default, yarn, llama3"));
  }
  if (s.kind != RopeScalingKind::kNone) f.Need("factor");
  if (s.kind == RopeScalingKind::kLlama3) {
    f.Need("low_freq_factor");
    f.Need("high_freq_factor");
    f.Refuse(f.Has("mscale_all_dim"), "mscale_all_dim in llama3 scaling");
  }
  f.Take("factor", s.factor);
  f.Take("original_max_position_embeddings", s.original_max_position_embeddings);
  f.Take("beta_fast", s.beta_fast);
  f.Take("beta_slow", s.beta_slow);
  // Absent means "no correction": only what is written counts.
  s.mscale = 0;
  f.Take("mscale", s.mscale);
  f.Take("mscale_all_dim", s.mscale_all_dim);
  f.Take("low_freq_factor", s.low_freq_factor);
  f.Take("high_freq_factor", s.high_freq_factor);
  f.Refuse(s.kind == RopeScalingKind::kYarn && f.Has("attention_factor"), "attention_factor in YaRN scaling");
  bool truncate = true;
  f.Take("truncate", truncate);
  f.Refuse(s.kind == RopeScalingKind::kYarn && !truncate, "truncate false in YaRN scaling");
  // Some have it beside the scaling; it counts before the one inside.
  if (s.kind != RopeScalingKind::kNone)
    Fields(object, source).Take("original_max_position_embeddings", s.original_max_position_embeddings);
  if (s.kind != RopeScalingKind::kNone && s.original_max_position_embeddings == 0) {
    s.original_max_position_embeddings = c.max_position_embeddings;
  }
  return f.status();
}

void ReadMla(Fields& f, ModelConfig& c) {
  for (const char* need : {"kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"})
    f.Need(need);
  f.Take("q_lora_rank", c.q_lora_rank);
  f.Take("kv_lora_rank", c.kv_lora_rank);
  f.Take("qk_nope_head_dim", c.qk_nope_head_dim);
  f.Take("qk_rope_head_dim", c.qk_rope_head_dim);
  f.Take("v_head_dim", c.v_head_dim);
  bool interleave = true;
  f.Take("rope_interleave", interleave);
  f.Refuse(!interleave, "rope_interleave false");
  c.num_key_value_heads = c.num_attention_heads;
}

void ReadDeepSeekExperts(Fields& f, ModelConfig& c) {
  const bool v3 = c.model_type == "deepseek_v3";
  // transformers fills gaps with the sizes of the released 671B model: a gap is refused rather than guessed.
  for (const char* need : {"n_routed_experts", "n_shared_experts", "num_experts_per_tok",
                           "routed_scaling_factor", "first_k_dense_replace", "moe_intermediate_size"}) {
    if (!f.HasKey(need)) f.Need(need);
  }
  if (v3) {
    f.Need("n_group");
    f.Need("topk_group");
  }
  f.Take("n_routed_experts", c.n_routed_experts);
  f.Take("n_shared_experts", c.n_shared_experts);
  f.Take("num_experts_per_tok", c.num_experts_per_tok);
  f.Take("n_group", c.n_group);
  f.Take("topk_group", c.topk_group);
  f.Take("routed_scaling_factor", c.routed_scaling_factor);
  c.norm_topk_prob = v3;
  f.Take("norm_topk_prob", c.norm_topk_prob);
  f.Refuse(!v3 && c.norm_topk_prob,
           "norm_topk_prob true in deepseek_v2");  // transformers never normalises there
  f.Take("first_k_dense_replace", c.first_k_dense_replace);
  f.Take("moe_intermediate_size", c.moe_intermediate_size);
  f.Take("num_nextn_predict_layers", c.num_nextn_predict_layers);
  int64_t frequency = 1;
  f.Take("moe_layer_freq", frequency);
  f.Refuse(frequency != 1, Concat("moe_layer_freq ", frequency));
  const std::string scoring = f.Text("scoring_func", v3 ? "sigmoid" : "softmax");
  f.Refuse(scoring != (v3 ? "sigmoid" : "softmax"),
           Concat("scoring_func \"", Printable(scoring), "\" in ", c.model_type));
  c.scoring = v3 ? Scoring::kSigmoid : Scoring::kSoftmax;
  const std::string method = f.Text("topk_method", v3 ? "noaux_tc" : "greedy");
  f.Refuse(v3 && method != "noaux_tc", Concat("topk_method \"", Printable(method), "\""));
  f.Refuse(!v3 && method != "greedy" && method != "group_limited_greedy",
           Concat("topk_method \"", Printable(method), "\""));
  if (!v3 && method == "greedy") c.n_group = c.topk_group = 1;
  c.selection_bias = v3 && c.n_routed_experts > 0;
}

absl::Status ReadQwenMoe(Fields& f, const json& object, const std::string& source, ModelConfig& c) {
  // transformers 5 writes Mixtral's name.
  const char* experts =
      f.Has("num_local_experts") && !f.Has("num_experts") ? "num_local_experts" : "num_experts";
  f.Need(experts);
  f.Take(experts, c.n_routed_experts);
  f.Take("num_experts_per_tok", c.num_experts_per_tok);
  f.Take("moe_intermediate_size", c.moe_intermediate_size);
  c.norm_topk_prob = false;
  f.Take("norm_topk_prob", c.norm_topk_prob);
  f.Take("decoder_sparse_step", c.decoder_sparse_step, 1);
  if (HasJsonField(object, "mlp_only_layers")) {
    ASSIGN_OR_RETURN(c.mlp_only_layers, GetIntArray(object, "mlp_only_layers", source, 0, 4096));
  }
  return absl::OkStatus();
}

void ReadGqa(Fields& f, ModelConfig& c) {
  // transformers' defaults are 8 and 4 heads, whatever their number.
  if (c.model_type == "mixtral" || c.model_type == "qwen3_moe") f.Need("num_key_value_heads");
  c.num_key_value_heads = c.num_attention_heads;
  f.Take("num_key_value_heads", c.num_key_value_heads, 1);
  c.head_dim = c.num_attention_heads > 0 ? c.hidden_size / c.num_attention_heads : 0;
  if (c.model_type == "qwen3") f.Need("head_dim");  // transformers' default is 128, whatever the width
  f.Take("head_dim", c.head_dim);
  c.qk_norm = c.model_type == "qwen3" || c.model_type == "qwen3_moe";
  bool bias = false;
  f.Take("attention_bias", bias);
  c.attention_bias = c.model_type == "qwen2";
  f.Refuse(bias && c.model_type != "qwen2", "attention_bias true");
  bool mlp_bias = false;
  f.Take("mlp_bias", mlp_bias);
  f.Refuse(mlp_bias, "mlp_bias true");
  bool sliding = c.model_type == "mixtral" ? f.Has("sliding_window") : false;
  f.Take("use_sliding_window", sliding);
  f.Refuse(sliding, "sliding-window attention");
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigFromJson(const std::string& text, const std::string& source) {
  ASSIGN_OR_RETURN(const json object, ParseJson(text, source));
  if (!object.is_object())
    return DamagedError(Concat(source, ": is ", DescribeJson(object), ", expected an object"));
  ModelConfig c;
  ASSIGN_OR_RETURN(c.model_type, GetString(object, "model_type", source));
  const std::vector<std::string> types = ModelTypes();
  if (std::find(types.begin(), types.end(), c.model_type) == types.end()) {
    return UsageError(Concat(source, ": model_type \"", Printable(c.model_type),
                             "\" is not supported; supported: ", Join(types)));
  }
  const bool deepseek = c.model_type == "deepseek_v3" || c.model_type == "deepseek_v2";
  c.attention = deepseek ? AttentionKind::kMla : AttentionKind::kGqa;
  c.scoring = Scoring::kSoftmax;
  Fields f(object, source);
  for (const char* need : {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"})
    f.Need(need);
  f.Take("vocab_size", c.vocab_size);
  f.Take("hidden_size", c.hidden_size);
  f.Take("intermediate_size", c.intermediate_size);
  f.Take("num_hidden_layers", c.num_hidden_layers);
  f.Take("num_attention_heads", c.num_attention_heads);
  f.Take("max_position_embeddings", c.max_position_embeddings);
  if (c.model_type == "mixtral") {  // transformers' defaults of this family
    c.rope_theta = 1e6;
    c.rms_norm_eps = 1e-5;
  }
  f.Take("rope_theta", c.rope_theta);
  f.Take("rms_norm_eps", c.rms_norm_eps);
  f.Take("tie_word_embeddings", c.tie_word_embeddings);
  f.Take("initializer_range", c.initializer_range);
  f.Take("bos_token_id", c.bos_token_id);
  // Some chat models list several ends; the first one ends documents.
  if (f.Has("eos_token_id") && f["eos_token_id"].is_array()) {
    const json& ends = f["eos_token_id"];
    if (!ends.empty() && ends[0].is_number_integer()) c.eos_token_id = ends[0].get<int64_t>();
  } else {
    f.Take("eos_token_id", c.eos_token_id, -1);  // -1: none
  }
  const std::string act = f.Text("hidden_act", "silu");
  f.Refuse(act != "silu", Concat("hidden_act \"", Printable(act), "\""));
  bool causal = true;
  f.Take("is_causal", causal);
  f.Refuse(!causal, "is_causal false");
  if (deepseek) {
    ReadMla(f, c);
    ReadDeepSeekExperts(f, c);
    bool bias = false;
    f.Take("attention_bias", bias);
    f.Refuse(bias, "attention_bias true");
  } else {
    ReadGqa(f, c);
    if (c.model_type == "qwen3_moe") f.Fail(ReadQwenMoe(f, object, source, c));
    if (c.model_type == "mixtral") {
      f.Need("num_local_experts");
      f.Take("num_local_experts", c.n_routed_experts);
      f.Take("num_experts_per_tok", c.num_experts_per_tok);
      c.moe_intermediate_size = c.intermediate_size;
    }
  }
  RETURN_IF_ERROR(f.status());
  RETURN_IF_ERROR(ReadRope(object, source, c));
  if (const absl::Status status = Validate(c, source); !status.ok())
    return DamagedError(std::string(status.message()));
  return c;
}

std::string ConfigToJson(const ModelConfig& c, const std::string& dtype) {
  static constexpr std::pair<const char*, const char*> kArchitectures[] = {
      {"deepseek_v3", "DeepseekV3ForCausalLM"},
      {"deepseek_v2", "DeepseekV2ForCausalLM"},
      {"qwen3_moe", "Qwen3MoeForCausalLM"},
      {"mixtral", "MixtralForCausalLM"},
      {"llama", "LlamaForCausalLM"},
      {"qwen2", "Qwen2ForCausalLM"},
      {"qwen3", "Qwen3ForCausalLM"}};
  nlohmann::ordered_json o;
  for (const auto& [type, architecture] : kArchitectures) {
    if (c.model_type == type) o["architectures"] = {architecture};
  }
  o["model_type"] = c.model_type;
  o["vocab_size"] = c.vocab_size;
  o["hidden_size"] = c.hidden_size;
  o["intermediate_size"] = c.intermediate_size;
  o["num_hidden_layers"] = c.num_hidden_layers;
  o["num_attention_heads"] = c.num_attention_heads;
  o["num_key_value_heads"] = c.num_key_value_heads;
  o["hidden_act"] = "silu";
  o["attention_dropout"] = 0.0;
  if (c.attention == AttentionKind::kMla) {
    o["q_lora_rank"] =
        c.q_lora_rank > 0 ? nlohmann::ordered_json(c.q_lora_rank) : nlohmann::ordered_json(nullptr);
    o["kv_lora_rank"] = c.kv_lora_rank;
    o["qk_nope_head_dim"] = c.qk_nope_head_dim;
    o["qk_rope_head_dim"] = c.qk_rope_head_dim;
    o["v_head_dim"] = c.v_head_dim;
    o["attention_bias"] = false;
    const bool v3 = c.model_type == "deepseek_v3";
    o["first_k_dense_replace"] = c.n_routed_experts > 0 ? c.first_k_dense_replace : c.num_hidden_layers;
    o["moe_layer_freq"] = 1;
    // transformers builds no expert where no layer is MoE, but its config wants the numbers.
    o["moe_intermediate_size"] = c.n_routed_experts > 0 ? c.moe_intermediate_size : c.intermediate_size;
    o["n_routed_experts"] =
        c.n_routed_experts > 0 ? nlohmann::ordered_json(c.n_routed_experts) : nlohmann::ordered_json(nullptr);
    o["n_shared_experts"] = c.n_shared_experts;
    o["num_experts_per_tok"] = c.num_experts_per_tok;
    o["n_group"] = c.n_group;
    o["topk_group"] = c.topk_group;
    o["routed_scaling_factor"] = c.routed_scaling_factor;
    o["norm_topk_prob"] = c.norm_topk_prob;
    o["scoring_func"] = v3 ? "sigmoid" : "softmax";
    o["topk_method"] = v3 ? "noaux_tc" : c.n_group > 1 ? "group_limited_greedy" : "greedy";
    o["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  } else {
    o["head_dim"] = c.head_dim;
    if (c.model_type == "mixtral") {
      o["num_local_experts"] = c.n_routed_experts;
      o["num_experts_per_tok"] = c.num_experts_per_tok;
      o["sliding_window"] = nullptr;
    }
    if (c.model_type == "qwen3_moe") {
      o["num_experts"] = c.n_routed_experts;
      o["num_experts_per_tok"] = c.num_experts_per_tok;
      o["moe_intermediate_size"] = c.moe_intermediate_size;
      o["norm_topk_prob"] = c.norm_topk_prob;
      o["decoder_sparse_step"] = c.decoder_sparse_step;
      o["mlp_only_layers"] = c.mlp_only_layers;
    }
    if (c.model_type == "llama" || c.model_type == "qwen3" || c.model_type == "qwen3_moe")
      o["attention_bias"] = false;
  }
  o["max_position_embeddings"] = c.max_position_embeddings;
  o["rope_theta"] = c.rope_theta;
  const RopeScaling& s = c.rope_scaling;
  if (s.kind == RopeScalingKind::kNone) {
    o["rope_scaling"] = nullptr;
  } else {
    nlohmann::ordered_json r;
    r["rope_type"] = s.kind == RopeScalingKind::kYarn ? "yarn" : "llama3";
    r["factor"] = s.factor;
    r["original_max_position_embeddings"] = s.original_max_position_embeddings;
    if (s.kind == RopeScalingKind::kYarn) {
      r["beta_fast"] = s.beta_fast;
      r["beta_slow"] = s.beta_slow;
      if (s.mscale != 0) r["mscale"] = s.mscale;
      if (s.mscale_all_dim != 0) r["mscale_all_dim"] = s.mscale_all_dim;
    } else {
      r["low_freq_factor"] = s.low_freq_factor;
      r["high_freq_factor"] = s.high_freq_factor;
    }
    o["rope_scaling"] = r;
  }
  o["rms_norm_eps"] = c.rms_norm_eps;
  o["initializer_range"] = c.initializer_range;
  o["tie_word_embeddings"] = c.tie_word_embeddings;
  o["bos_token_id"] =
      c.bos_token_id >= 0 ? nlohmann::ordered_json(c.bos_token_id) : nlohmann::ordered_json(nullptr);
  o["eos_token_id"] =
      c.eos_token_id >= 0 ? nlohmann::ordered_json(c.eos_token_id) : nlohmann::ordered_json(nullptr);
  o["torch_dtype"] = dtype;
  return DumpJson(o, 2) + "\n";
}

}  // namespace moebius
