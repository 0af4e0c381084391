// The prover itself: what it shrinks, what it measures, and when it says no.
#include "optim/verify.h"

#include <algorithm>
#include <cmath>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "optim/shrink.h"

namespace moebius {
namespace {

ModelConfig DeepseekV3() {
  ModelConfig m;
  m.vocab_size = 129280;
  m.hidden_size = 7168;
  m.intermediate_size = 18432;
  m.moe_intermediate_size = 2048;
  m.num_hidden_layers = 61;
  m.num_attention_heads = m.num_key_value_heads = 128;
  m.q_lora_rank = 1536;
  m.kv_lora_rank = 512;
  m.qk_nope_head_dim = 128;
  m.qk_rope_head_dim = 64;
  m.v_head_dim = 128;
  m.n_routed_experts = 256;
  m.n_shared_experts = 1;
  m.num_experts_per_tok = 8;
  m.n_group = 8;
  m.topk_group = 4;
  m.routed_scaling_factor = 2.5;
  m.selection_bias = true;
  m.first_k_dense_replace = 3;
  m.num_nextn_predict_layers = 1;
  m.max_position_embeddings = 163840;
  m.rope_scaling = {.kind = RopeScalingKind::kYarn, .factor = 40, .original_max_position_embeddings = 4096};
  return m;
}

ModelConfig Qwen3Moe() {
  ModelConfig m;
  m.model_type = "qwen3_moe";
  m.attention = AttentionKind::kGqa;
  m.vocab_size = 151936;
  m.hidden_size = 2048;
  m.intermediate_size = 6144;
  m.moe_intermediate_size = 768;
  m.num_hidden_layers = 48;
  m.num_attention_heads = 32;
  m.num_key_value_heads = 4;
  m.head_dim = 128;
  m.n_routed_experts = 128;
  m.num_experts_per_tok = 8;
  m.scoring = Scoring::kSoftmax;
  m.qk_norm = true;
  m.mlp_only_layers = {40};
  m.max_position_embeddings = 40960;
  return m;
}

TEST(ShrinkTest, KeepsEveryFeatureOfDeepseekV3AndSaysWhatItChanged) {
  const absl::StatusOr<ShrunkModel> shrunk = Shrink(DeepseekV3());
  ASSERT_TRUE(shrunk.ok()) << std::string(shrunk.status().message());
  const ModelConfig& c = shrunk->config;
  EXPECT_EQ(c.num_hidden_layers, 8) << "4 pipeline ranks of 2 stages";
  EXPECT_GE(c.n_routed_experts, 8);
  EXPECT_GT(c.n_group, 1);
  EXPECT_LT(c.topk_group, c.n_group);
  EXPECT_LT(c.num_experts_per_tok, c.n_routed_experts / c.n_group * c.topk_group) << "something to choose";
  EXPECT_EQ(c.n_shared_experts, 1);
  EXPECT_TRUE(c.selection_bias);
  EXPECT_EQ(c.first_k_dense_replace, 1);
  EXPECT_EQ(c.num_nextn_predict_layers, 1);
  EXPECT_GT(c.q_lora_rank, 0);
  EXPECT_EQ(c.routed_scaling_factor, 2.5);
  EXPECT_EQ(c.rope_scaling.factor, 40);
  EXPECT_EQ(Join(shrunk->changes).substr(0, 24), "vocab_size 129280 -> 40,");
  EXPECT_EQ(Join(Shrink(DeepseekV3())->changes), Join(shrunk->changes));
}

TEST(ShrinkTest, KeepsOtherFamiliesWhatTheyAre) {
  const ModelConfig qwen = Shrink(Qwen3Moe())->config;
  EXPECT_EQ(qwen.num_attention_heads / qwen.num_key_value_heads, 2);
  EXPECT_TRUE(qwen.qk_norm);
  EXPECT_EQ(qwen.n_group, 1);
  EXPECT_EQ(qwen.mlp_only_layers.size(), 1u) << "a dense layer between";
  EXPECT_TRUE(qwen.IsMoe(0));
  ModelConfig plain = DeepseekV3();
  plain.q_lora_rank = 0;
  plain.tie_word_embeddings = true;
  EXPECT_EQ(Shrink(plain)->config.q_lora_rank, 0);
  EXPECT_TRUE(Shrink(plain)->config.tie_word_embeddings);
  ModelConfig three = DeepseekV3();
  three.num_hidden_layers = 3;
  three.n_routed_experts = 4;
  three.n_group = three.topk_group = 1;
  three.num_experts_per_tok = 1;
  EXPECT_EQ(Shrink(three)->config.num_hidden_layers, 8) << "few layers grow";
  EXPECT_EQ(Shrink(three)->config.n_routed_experts, 8) << "few experts grow";
  ModelConfig mixtral = Qwen3Moe();
  mixtral.model_type = "mixtral";
  mixtral.qk_norm = false;
  mixtral.mlp_only_layers = {};
  mixtral.moe_intermediate_size = mixtral.intermediate_size;
  EXPECT_TRUE(Shrink(mixtral).ok());
  ModelConfig llama = mixtral;
  llama.model_type = "llama";
  llama.n_routed_experts = 0;
  EXPECT_TRUE(Shrink(llama).ok());
}

// Weights of zero: every score is the same, and the selection bias alone decides.
double MarginUnder(const std::vector<float>& bias, double sequence_loss) {
  VerifyConfig c;
  ModelConfig m = DeepseekV3();
  m.n_group = 2;
  m.topk_group = 1;
  m.num_experts_per_tok = 2;
  c.model = Shrink(m)->config;
  EXPECT_EQ(c.model.n_routed_experts, 8);
  c.steps = c.train.steps = 1;
  c.sequences = 2;
  c.length = 4;
  c.sigma = 0;
  c.train.sequence_loss = sequence_loss;
  c.selection_bias = bias;
  return SmallestMargin(*RunLayout(c, {}, {}, 1));
}

TEST(RoutingMarginTest, IsTheLeadOfTheLastChosenExpertOrGroup) {
  EXPECT_NEAR(MarginUnder({.7f, .6f, .5f, .4f, .3f, .2f, .1f, 0}, 0), .1, 1e-6) << "experts 1 and 2";
  EXPECT_NEAR(MarginUnder({.4f, .2f, 0, 0, .3f, .25f, 0, 0}, 0), .05, 1e-6) << "groups 0.6 and 0.55";
  EXPECT_NEAR(MarginUnder({.9f, .9f, .25f, 0, .3f, .3f, .3f, .3f}, 0), .65, 1e-6)
      << "other groups' do not count";
  EXPECT_EQ(MarginUnder({}, 0), 0) << "all alike";
  EXPECT_EQ(MarginUnder({.7f, .6f, .5f, .4f, .3f, .2f, .1f, 0}, 1e-3), 0)
      << "the balance loss counts without the bias";
}

LayoutResult Result(double margin) {
  LayoutResult r;
  r.gradients["w"] = {3, 4};
  r.counts = {{5, 5}};
  r.biases["b"] = {0.1f, -0.1f};
  r.steps.resize(2);
  for (int i = 0; i < 2; ++i) {
    r.steps[i].step = i + 1;
    r.steps[i].expert_counts = r.counts;
    r.steps[i].loss = r.steps[i].grad_norm = 2;
  }
  r.evaluation = 7;
  r.margins = {margin, margin};
  return r;
}

TEST(JudgeTest, NamesWhatDiffersAndExcusesOnlyWhatAFlipExplains) {
  const LayoutResult far = Result(1e-3), near = Result(1e-7);
  const auto judge = [](const LayoutResult& result, const LayoutResult& reference) {
    return Judge(Compare(result, reference), reference, {});
  };
  EXPECT_EQ(judge(far, far), Verdict::kEqual);
  LayoutResult r = far;
  r.gradients["w"] = {3, 4.0002f};
  EXPECT_NEAR(Compare(r, far).gradient, 4e-5, 1e-6);
  EXPECT_EQ(Compare(r, far).tensor, "w");
  EXPECT_EQ(judge(r, far), Verdict::kDifferent);
  EXPECT_EQ(judge(r, near), Verdict::kFlip);
  r.gradients["w"] = {3, 5};
  EXPECT_EQ(judge(r, near), Verdict::kDifferent) << "too much for a flip";
  r.gradients["w"] = {3, NAN};
  EXPECT_EQ(judge(r, near), Verdict::kDifferent);
  LayoutResult untouched = far;
  untouched.gradients["none"] = {0, 0};
  r = untouched;
  EXPECT_EQ(judge(r, untouched), Verdict::kEqual);
  r.gradients["none"] = {0, NAN};
  EXPECT_EQ(judge(r, untouched), Verdict::kDifferent) << "NaN where there is no gradient";
  untouched.gradients["none"] = {0, NAN};
  EXPECT_EQ(judge(r, untouched), Verdict::kDifferent) << "NaN proves nothing";
  r.gradients.clear();
  EXPECT_EQ(judge(r, near), Verdict::kDifferent) << "no gradient at all";
  r = far;
  r.gradients["more"] = {1};
  EXPECT_EQ(judge(r, far), Verdict::kDifferent);
  r = far;
  r.counts = {{4, 6}};
  EXPECT_EQ(Compare(r, far).counts, 1);
  EXPECT_EQ(judge(r, far), Verdict::kDifferent);
  r = far;
  r.steps[1].expert_counts = {{3, 7}};
  EXPECT_EQ(Compare(r, far).later_counts, 2);
  EXPECT_EQ(judge(r, far), Verdict::kDifferent) << "of a later step";
  EXPECT_EQ(judge(r, near), Verdict::kFlip);
  for (const auto& bias : {std::vector<float>{0.1f, 0.1f}, std::vector<float>()}) {
    r = far;
    r.biases["b"] = bias;
    EXPECT_EQ(Compare(r, far).bias, "b");
    EXPECT_EQ(judge(r, far), Verdict::kDifferent) << "its updates";
    EXPECT_EQ(judge(r, near), Verdict::kFlip);
  }
  r = far;
  r.steps[1].loss = 2.0001;
  EXPECT_EQ(Compare(r, far).step, 2);
  EXPECT_EQ(judge(r, far), Verdict::kDifferent);
  EXPECT_EQ(judge(r, near), Verdict::kFlip);
  LayoutResult later = near;
  later.margins[0] = 1e-3;
  EXPECT_EQ(judge(r, later), Verdict::kFlip);
  r.gradients["w"] = {3, 4.0002f};
  EXPECT_EQ(judge(r, later), Verdict::kDifferent) << "a flip of step 2 excuses no gradient of step 1";
  r = far;
  r.steps[1].skipped = true;
  EXPECT_EQ(judge(r, far), Verdict::kDifferent) << "a step of bad numbers proves nothing";
  r = far;
  r.steps.pop_back();
  EXPECT_EQ(judge(r, far), Verdict::kDifferent);
  r = far;
  r.evaluation = 8;
  EXPECT_EQ(Compare(r, far).step, 3);
  r = near;
  r.torn_replica = "w";
  EXPECT_EQ(judge(r, near), Verdict::kDifferent) << "no flip tears replicas";
}

}  // namespace
}  // namespace moebius
