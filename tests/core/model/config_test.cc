#include "core/model/config.h"

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/model.pb.h"
#include "gtest/gtest.h"
#include "tests/core/model/tiny_models.h"

namespace moebius {
namespace {

using nlohmann::json;

const char* const kGolden[] = {
    "deepseek_v2_lite", "deepseek_v3", "deepseek_v3_fp8", "deepseek_v3_mtp", "deepseek_v3_noq_yarn",
    "llama3",           "mixtral",     "qwen2_tied",      "qwen3",           "qwen3_moe"};

json GoldenJson(const std::string& name) {
  const std::string path = Concat(MOEBIUS_SOURCE_DIR, "/tests/golden/models/", name, "/model/config.json");
  absl::StatusOr<std::string> text = ReadFile(path);
  CHECK(text.ok()) << std::string(text.status().message());
  return json::parse(*text);
}

ModelConfig Read(const json& value) {
  absl::StatusOr<ModelConfig> config = ConfigFromJson(value.dump(), "config.json");
  CHECK(config.ok()) << std::string(config.status().message());
  return *std::move(config);
}

std::string ErrorOf(const json& value) {
  const absl::StatusOr<ModelConfig> config = ConfigFromJson(value.dump(), "DIR/config.json");
  return config.ok() ? "" : std::string(config.status().message());
}

// Every field, for comparison: a field that is forgotten here is not tested, so add it with its struct's.
std::vector<std::string> AllFields(const ModelConfig& c) {
  std::vector<std::string> out;
  const auto add = [&](const char* name, const auto& value) { out.push_back(Concat(name, " = ", value)); };
#define MOEBIUS_FIELD(field) add(#field, c.field)
  MOEBIUS_FIELD(model_type);
  add("attention", static_cast<int>(c.attention));
  MOEBIUS_FIELD(vocab_size);
  MOEBIUS_FIELD(hidden_size);
  MOEBIUS_FIELD(intermediate_size);
  MOEBIUS_FIELD(moe_intermediate_size);
  MOEBIUS_FIELD(num_hidden_layers);
  MOEBIUS_FIELD(num_attention_heads);
  MOEBIUS_FIELD(num_key_value_heads);
  MOEBIUS_FIELD(head_dim);
  MOEBIUS_FIELD(q_lora_rank);
  MOEBIUS_FIELD(kv_lora_rank);
  MOEBIUS_FIELD(qk_nope_head_dim);
  MOEBIUS_FIELD(qk_rope_head_dim);
  MOEBIUS_FIELD(v_head_dim);
  MOEBIUS_FIELD(n_routed_experts);
  MOEBIUS_FIELD(n_shared_experts);
  MOEBIUS_FIELD(num_experts_per_tok);
  MOEBIUS_FIELD(n_group);
  MOEBIUS_FIELD(topk_group);
  MOEBIUS_FIELD(routed_scaling_factor);
  MOEBIUS_FIELD(norm_topk_prob);
  add("scoring", static_cast<int>(c.scoring));
  MOEBIUS_FIELD(selection_bias);
  MOEBIUS_FIELD(first_k_dense_replace);
  MOEBIUS_FIELD(decoder_sparse_step);
  for (const int64_t layer : c.mlp_only_layers) add("mlp_only_layers", layer);
  MOEBIUS_FIELD(num_nextn_predict_layers);
  MOEBIUS_FIELD(max_position_embeddings);
  MOEBIUS_FIELD(rope_theta);
  add("rope_scaling.kind", static_cast<int>(c.rope_scaling.kind));
  if (c.rope_scaling.kind != RopeScalingKind::kNone) {
    MOEBIUS_FIELD(rope_scaling.factor);
    MOEBIUS_FIELD(rope_scaling.original_max_position_embeddings);
  }
  if (c.rope_scaling.kind == RopeScalingKind::kYarn) {
    MOEBIUS_FIELD(rope_scaling.beta_fast);
    MOEBIUS_FIELD(rope_scaling.beta_slow);
    MOEBIUS_FIELD(rope_scaling.mscale);
    MOEBIUS_FIELD(rope_scaling.mscale_all_dim);
  }
  if (c.rope_scaling.kind == RopeScalingKind::kLlama3) {
    MOEBIUS_FIELD(rope_scaling.low_freq_factor);
    MOEBIUS_FIELD(rope_scaling.high_freq_factor);
  }
  MOEBIUS_FIELD(rms_norm_eps);
  MOEBIUS_FIELD(tie_word_embeddings);
  MOEBIUS_FIELD(attention_bias);
  MOEBIUS_FIELD(qk_norm);
  MOEBIUS_FIELD(initializer_range);
  MOEBIUS_FIELD(bos_token_id);
  MOEBIUS_FIELD(eos_token_id);
#undef MOEBIUS_FIELD
  return out;
}

TEST(ConfigTest, GoldenConfigsParseAndSurviveWritingAndReading) {
  for (const char* name : kGolden) {
    const ModelConfig config = Read(GoldenJson(name));
    const std::string text = ConfigToJson(config, "float32");
    EXPECT_EQ(AllFields(Read(json::parse(text))), AllFields(config)) << name;
    EXPECT_EQ(ConfigToJson(Read(json::parse(text)), "float32"), text) << name;
  }
}

TEST(ConfigTest, TinyConfigsOfAllFamiliesSurviveWritingAndReading) {
  for (const std::string& name : TinyNames()) {
    const ModelConfig config = TinyConfig(name);
    EXPECT_EQ(AllFields(Read(json::parse(ConfigToJson(config, "bfloat16")))), AllFields(config)) << name;
  }
}

// What is written has every field of the golden file with the same value, so that transformers reads the same
// model.
TEST(ConfigTest, WhatIsWrittenAgreesWithTheReleasedForm) {
  for (const char* name : kGolden) {
    const json golden = GoldenJson(name);
    const json written = json::parse(ConfigToJson(Read(golden), "float32"));
    for (const auto& [field, value] : golden.items()) {
      if (field == "quantization_config" || field == "rope_parameters" || field == "dtype" ||
          field == "torch_dtype") {
        continue;
      }
      ASSERT_TRUE(written.contains(field)) << name << " " << field;
      EXPECT_EQ(written[field], value) << name << " " << field;
    }
    if (golden.contains("rope_parameters")) {
      for (const auto& [field, value] : golden["rope_parameters"].items()) {
        if (field == "rope_theta") {
          EXPECT_EQ(written["rope_theta"], value) << name;
        } else if (golden["rope_parameters"]["rope_type"] == "default") {
          EXPECT_TRUE(written["rope_scaling"].is_null()) << name;
        } else {
          EXPECT_EQ(written["rope_scaling"][field], value) << name << " " << field;
        }
      }
    }
    EXPECT_EQ(written["torch_dtype"], "float32");
  }
}

TEST(ConfigTest, FamiliesHaveTheChoicesOfTheirModels) {
  const ModelConfig v3 = Read(GoldenJson("deepseek_v3"));
  EXPECT_EQ(v3.attention, AttentionKind::kMla);
  EXPECT_EQ(v3.scoring, Scoring::kSigmoid);
  EXPECT_TRUE(v3.selection_bias);
  EXPECT_TRUE(v3.norm_topk_prob);
  EXPECT_EQ(v3.q_lora_rank, 48);
  EXPECT_FALSE(v3.IsMoe(0));
  EXPECT_TRUE(v3.IsMoe(1));
  EXPECT_FLOAT_EQ(v3.attention_scale(), 1 / std::sqrt(24.0f));

  const ModelConfig lite = Read(GoldenJson("deepseek_v2_lite"));
  EXPECT_EQ(lite.q_lora_rank, 0);
  EXPECT_EQ(lite.scoring, Scoring::kSoftmax);
  EXPECT_FALSE(lite.norm_topk_prob);
  EXPECT_FALSE(lite.selection_bias);
  EXPECT_EQ(lite.n_group, 1);

  const ModelConfig yarn = Read(GoldenJson("deepseek_v3_noq_yarn"));
  EXPECT_EQ(yarn.rope_scaling.kind, RopeScalingKind::kYarn);
  EXPECT_EQ(yarn.rope_scaling.original_max_position_embeddings, 32);
  const double m = 0.1 * std::log(8.0) + 1;
  EXPECT_NEAR(yarn.attention_scale(), m * m / std::sqrt(24.0), 1e-6);

  const ModelConfig moe = Read(GoldenJson("qwen3_moe"));
  EXPECT_TRUE(moe.qk_norm);
  EXPECT_FALSE(moe.IsMoe(0)) << "in mlp_only_layers";
  EXPECT_TRUE(moe.IsMoe(1));
  EXPECT_TRUE(moe.norm_topk_prob);
  json renamed = GoldenJson("qwen3_moe");  // as transformers 5 writes it
  renamed["num_local_experts"] = renamed["num_experts"];
  renamed.erase("num_experts");
  EXPECT_EQ(Read(renamed).n_routed_experts, moe.n_routed_experts);

  const ModelConfig mixtral = Read(GoldenJson("mixtral"));
  EXPECT_EQ(mixtral.n_routed_experts, 4);
  EXPECT_EQ(mixtral.moe_intermediate_size, 48);
  EXPECT_TRUE(mixtral.norm_topk_prob);
  EXPECT_EQ(mixtral.rope_theta, 1e6);
  json bare = GoldenJson("mixtral");  // transformers' defaults of the family
  for (const char* field : {"rope_theta", "rope_parameters", "rms_norm_eps"}) bare.erase(field);
  EXPECT_EQ(Read(bare).rope_theta, 1e6);
  EXPECT_EQ(Read(bare).rms_norm_eps, 1e-5);

  const ModelConfig qwen2 = Read(GoldenJson("qwen2_tied"));
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_TRUE(qwen2.tie_word_embeddings);
  EXPECT_EQ(qwen2.head_dim, 16);

  const ModelConfig llama = Read(GoldenJson("llama3"));
  EXPECT_EQ(llama.rope_scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(llama.rope_scaling.high_freq_factor, 4);
  EXPECT_EQ(Read(GoldenJson("qwen3")).head_dim, 32);
}

TEST(ConfigTest, AListOfEndTokensEndsDocumentsWithItsFirst) {
  json value = GoldenJson("llama3");
  value["eos_token_id"] = {7, 8, 9};
  EXPECT_EQ(Read(value).eos_token_id, 7);
  value["eos_token_id"] = nullptr;
  EXPECT_EQ(Read(value).eos_token_id, -1);
}

struct Refusal {
  const char* golden;
  const char* field;
  json value;
};

TEST(ConfigTest, WhatWouldChangeTheMathematicsIsRefusedByName) {
  const Refusal refusals[] = {
      {"deepseek_v3", "hidden_act", "gelu"},
      {"deepseek_v3", "scoring_func", "softmax"},
      {"deepseek_v3", "topk_method", "greedy"},
      {"deepseek_v3", "attention_bias", true},
      {"deepseek_v3", "moe_layer_freq", 2},
      {"deepseek_v3", "rope_interleave", false},
      {"deepseek_v2_lite", "scoring_func", "sigmoid"},
      {"deepseek_v2_lite", "topk_method", "noaux_tc"},
      {"deepseek_v2_lite", "norm_topk_prob", true},
      {"qwen3", "attention_bias", true},
      {"qwen3", "use_sliding_window", true},
      {"qwen2_tied", "use_sliding_window", true},
      {"llama3", "attention_bias", true},
      {"llama3", "mlp_bias", true},
      {"mixtral", "sliding_window", 4096},
      {"llama3", "is_causal", false},
      {"deepseek_v3", "rope_interleave", nullptr},
      {"llama3", "model_type", "gpt2"},
  };
  for (const Refusal& refusal : refusals) {
    json value = GoldenJson(refusal.golden);
    value[refusal.field] = refusal.value;
    const std::string error = ErrorOf(value);
    EXPECT_NE(error.find("DIR/config.json"), std::string::npos)
        << refusal.golden << " " << refusal.field << ": " << error;
    const std::string word = std::string(refusal.field) == "use_sliding_window" ? "sliding" : refusal.field;
    EXPECT_TRUE(error.find(word) != std::string::npos || error.find("sliding-window") != std::string::npos)
        << refusal.golden << " " << refusal.field << ": " << error;
  }
  json yarn = GoldenJson("deepseek_v3_noq_yarn");
  yarn["rope_parameters"]["attention_factor"] = 1.5;
  EXPECT_NE(ErrorOf(yarn).find("attention_factor"), std::string::npos);
  yarn = GoldenJson("deepseek_v3_noq_yarn");
  yarn["rope_parameters"]["truncate"] = false;
  EXPECT_NE(ErrorOf(yarn).find("truncate false"), std::string::npos);
  yarn = GoldenJson("deepseek_v3_noq_yarn");
  yarn["rope_parameters"]["rope_type"] = "longrope";
  EXPECT_NE(ErrorOf(yarn).find("longrope"), std::string::npos);
}

TEST(ConfigTest, ScalingsOfBothSpellingsMustAgree) {
  json value = GoldenJson("deepseek_v3_noq_yarn");
  const ModelConfig wanted = Read(value);
  json older = value["rope_parameters"];
  older["type"] = older["rope_type"];
  older.erase("rope_type");
  older.erase("rope_theta");
  value["rope_scaling"] = older;
  EXPECT_EQ(AllFields(Read(value)), AllFields(wanted));
  value["rope_scaling"]["factor"] = 2.5;
  EXPECT_NE(ErrorOf(value).find("rope_scaling and rope_parameters"), std::string::npos) << ErrorOf(value);
  value = GoldenJson("llama3");
  value["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  value["rope_scaling"] = older;
  EXPECT_NE(ErrorOf(value).find("rope_scaling and rope_parameters"), std::string::npos) << ErrorOf(value);
}

// transformers reads the length before it was scaled from beside the scaling first.
TEST(ConfigTest, AnOriginalLengthBesideTheScalingCounts) {
  json value = GoldenJson("deepseek_v3_noq_yarn");
  value["original_max_position_embeddings"] = 24;
  EXPECT_EQ(Read(value).rope_scaling.original_max_position_embeddings, 24);
  value["rope_parameters"].erase("original_max_position_embeddings");
  EXPECT_EQ(Read(value).rope_scaling.original_max_position_embeddings, 24);
}

TEST(ConfigTest, AScalingWithoutItsNumbersIsRefused) {
  for (const auto& [golden, field] :
       {std::pair("deepseek_v3_noq_yarn", "factor"), std::pair("llama3", "factor"),
        std::pair("llama3", "low_freq_factor"), std::pair("llama3", "high_freq_factor")}) {
    json value = GoldenJson(golden);
    json& scaling = value[value.contains("rope_parameters") ? "rope_parameters" : "rope_scaling"];
    ASSERT_TRUE(scaling.contains(field)) << value;
    scaling.erase(field);
    EXPECT_NE(ErrorOf(value).find(field), std::string::npos) << golden << " " << field;
    scaling[field] = nullptr;
    EXPECT_NE(ErrorOf(value).find(field), std::string::npos) << golden << " " << field << " null";
  }
}

TEST(ConfigTest, NullIsNoAndNoEndsAreNone) {
  json value = GoldenJson("deepseek_v3");
  value["norm_topk_prob"] = nullptr;
  EXPECT_FALSE(Read(value).norm_topk_prob);
  value.erase("norm_topk_prob");
  EXPECT_TRUE(Read(value).norm_topk_prob);
  for (const json& none : {json::array(), json(-1), json()}) {
    value["eos_token_id"] = none;
    EXPECT_EQ(Read(value).eos_token_id, -1) << none;
  }
}

TEST(ConfigTest, MissingAndOddFieldsAreNamed) {
  for (const char* field :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "kv_lora_rank",
        "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "model_type"}) {
    json value = GoldenJson("deepseek_v3");
    value.erase(field);
    EXPECT_NE(ErrorOf(value).find(field), std::string::npos) << field << ": " << ErrorOf(value);
    value[field] = "many";
    EXPECT_NE(ErrorOf(value).find(std::string(field) == "model_type" ? "many" : field), std::string::npos)
        << field;
  }
  const std::pair<const char*, json> odd[] = {
      {"hidden_size", 0},
      {"hidden_size", -4},
      {"vocab_size", int64_t{1} << 50},
      {"num_hidden_layers", 0},
      {"num_experts_per_tok", 99},
      {"n_group", 5},
      {"topk_group", 9},
      {"n_group", 0},
      {"rope_theta", -1},
      {"rms_norm_eps", "small"},
      {"rope_scaling", 3},
      {"qk_rope_head_dim", 7},
      {"num_nextn_predict_layers", 1000},
      {"tie_word_embeddings", 1},
      {"initializer_range", -1},
  };
  for (const auto& [field, value] : odd) {
    json config = GoldenJson("deepseek_v3");
    config[field] = value;
    const std::string error = ErrorOf(config),
                      word = std::string(field) == "qk_rope_head_dim" ? "rotary" : field;
    EXPECT_NE(error.find(word), std::string::npos) << field << " = " << value << ": " << error;
    EXPECT_NE(error.find("DIR/config.json"), std::string::npos) << error;
  }
  EXPECT_NE(ErrorOf(json::array()).find("object"), std::string::npos);
}

TEST(ConfigTest, AllContradictionsAreReportedAtOnce) {
  ModelConfig config = TinyConfig("deepseek_v3");
  config.hidden_size = 0;
  config.n_group = 4;
  config.topk_group = 7;
  const std::string error(Validate(config, "recipe.textproto").message());
  for (const char* part : {"recipe.textproto", "hidden_size", "n_group = 4", "topk_group = 7"}) {
    EXPECT_NE(error.find(part), std::string::npos) << part << ": " << error;
  }
}

TEST(ConfigTest, ScalingsTokensAndSizesThatCannotBeAreNamed) {
  struct Case {
    std::function<void(ModelConfig&)> change;
    const char* message;
  };
  const auto yarn = [](double fast, double slow) {
    return [=](ModelConfig& c) {
      c.rope_scaling = {.kind = RopeScalingKind::kYarn, .factor = 8, .original_max_position_embeddings = 32};
      c.rope_scaling.beta_fast = fast;
      c.rope_scaling.beta_slow = slow;
    };
  };
  const std::vector<Case> cases = {
      {yarn(0, 1), "beta_fast = 0"},
      {yarn(1, 1), "beta_fast = 1"},
      {yarn(32, 0), "beta_slow = 0"},
      {[](ModelConfig& c) {
         c.rope_scaling = {
             .kind = RopeScalingKind::kLlama3, .factor = 8, .original_max_position_embeddings = 32};
         c.rope_scaling.low_freq_factor = c.rope_scaling.high_freq_factor = 2;
       },
       "high_freq_factor = 2"},
      {[](ModelConfig& c) { c.bos_token_id = c.vocab_size; }, "bos_token_id"},
      {[](ModelConfig& c) { c.bos_token_id = (int64_t{1} << 32) + 3; }, "bos_token_id"},
      {[](ModelConfig& c) {
         c.n_routed_experts = 65536;
         c.num_hidden_layers = 4096;
         c.hidden_size = c.moe_intermediate_size = 1 << 20;
       },
       "more than 10^18 parameters"},
  };
  for (const Case& c : cases) {
    ModelConfig config = TinyConfig("deepseek_v3");
    c.change(config);
    const std::string error(Validate(config, "config.json").message());
    EXPECT_NE(error.find(c.message), std::string::npos) << c.message << ": " << error;
  }
  ModelConfig fine = TinyConfig("deepseek_v3");
  yarn(32, 1)(fine);
  EXPECT_TRUE(Validate(fine, "config.json").ok()) << Validate(fine, "config.json");
}

TEST(ConfigTest, RecipesGetTheDefaultsOfTheirFamily) {
  proto::Model model;
  model.set_vocab_size(100);
  model.set_hidden_size(64);
  model.set_intermediate_size(128);
  model.set_moe_intermediate_size(32);
  model.set_num_hidden_layers(4);
  model.set_num_attention_heads(4);
  model.set_kv_lora_rank(16);
  model.set_qk_nope_head_dim(16);
  model.set_qk_rope_head_dim(8);
  model.set_v_head_dim(16);
  model.set_n_routed_experts(8);
  model.set_num_experts_per_tok(2);
  model.set_first_k_dense_replace(1);
  absl::StatusOr<ModelConfig> v3 = ConfigFromProto(model);
  ASSERT_TRUE(v3.ok()) << std::string(v3.status().message());
  EXPECT_EQ(v3->model_type, "deepseek_v3");
  EXPECT_EQ(v3->scoring, Scoring::kSigmoid);
  EXPECT_TRUE(v3->selection_bias);
  EXPECT_TRUE(v3->norm_topk_prob);
  model.set_model_type("deepseek_v2");
  absl::StatusOr<ModelConfig> v2 = ConfigFromProto(model);
  ASSERT_TRUE(v2.ok());
  EXPECT_EQ(v2->scoring, Scoring::kSoftmax);
  EXPECT_FALSE(v2->norm_topk_prob);
  model.set_model_type("deepsek_v3");
  EXPECT_NE(std::string(ConfigFromProto(model).status().message()).find("did you mean \"deepseek_v3\""),
            std::string::npos);
  model.set_model_type("deepseek_v3");
  model.set_scoring_func("tanh");
  EXPECT_NE(std::string(ConfigFromProto(model).status().message()).find("scoring_func"), std::string::npos);
  EXPECT_EQ(ExitCode(ConfigFromProto(model).status()), kExitUsage);
}

// A recipe may ask for what no config.json of the family can say; the checkpoint would then lie.
TEST(ConfigTest, RecipesCannotAskForWhatTheirFamilyCannotSave) {
  proto::Model model;
  model.set_model_type("llama");
  model.set_vocab_size(100);
  model.set_hidden_size(64);
  model.set_intermediate_size(128);
  model.set_num_hidden_layers(2);
  model.set_num_attention_heads(4);
  ASSERT_TRUE(ConfigFromProto(model).ok());
  const auto error_with = [&](const auto& change) {
    proto::Model changed = model;
    change(changed);
    const absl::StatusOr<ModelConfig> config = ConfigFromProto(changed);
    return config.ok() ? std::string() : std::string(config.status().message());
  };
  EXPECT_NE(error_with([](proto::Model& m) { m.set_qk_norm(true); }).find("qk_norm"), std::string::npos);
  EXPECT_NE(error_with([](proto::Model& m) { m.set_attention_bias(true); }).find("attention_bias"),
            std::string::npos);
  EXPECT_NE(error_with([](proto::Model& m) { m.set_scoring_func("sigmoid"); }).find("scoring_func"),
            std::string::npos);
  EXPECT_NE(error_with([](proto::Model& m) {
              m.set_n_routed_experts(4), m.set_num_experts_per_tok(2), m.set_moe_intermediate_size(8);
            }).find("n_routed_experts"),
            std::string::npos);
}

TEST(ConfigTest, ARouterThatABackendHasNoKernelsForIsRefusedByItsField) {
  ModelConfig config;
  config.n_routed_experts = 600;
  config.num_experts_per_tok = 40;
  EXPECT_TRUE(CheckRouter(config, {}, "cpu").ok());
  EXPECT_TRUE(CheckRouter(config, {.experts = 600, .top_k = 40}, "a card").ok());
  const absl::Status experts = CheckRouter(config, {.experts = 512, .top_k = 32}, "a card");
  EXPECT_EQ(ExitCode(experts), kExitUnavailable);
  EXPECT_NE(experts.message().find("model.n_routed_experts is 600; the router of a card takes 512"),
            std::string::npos)
      << experts;
  const absl::Status choices = CheckRouter(config, {.experts = 600, .top_k = 32}, "a card");
  EXPECT_NE(choices.message().find("model.num_experts_per_tok is 40"), std::string::npos) << choices;
  config.n_routed_experts = 0;
  EXPECT_TRUE(CheckRouter(config, {.experts = 512, .top_k = 32}, "a card").ok()) << "a dense model";
}

}  // namespace
}  // namespace moebius
