// The counts of cost.md, to the last parameter.
#include "core/model/cost.h"

#include "gtest/gtest.h"
#include "tests/core/model/tiny_models.h"

namespace moebius {
namespace {

ModelConfig DeepSeekV3() {
  ModelConfig c;
  c.vocab_size = 129280;
  c.hidden_size = 7168;
  c.intermediate_size = 18432;
  c.moe_intermediate_size = 2048;
  c.num_hidden_layers = 61;
  c.first_k_dense_replace = 3;
  c.num_attention_heads = c.num_key_value_heads = 128;
  c.q_lora_rank = 1536;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.v_head_dim = 128;
  c.n_routed_experts = 256;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 8;
  c.n_group = 8;
  c.topk_group = 4;
  c.selection_bias = true;
  c.num_nextn_predict_layers = 1;
  return c;
}

ModelConfig DeepSeekV2() {
  ModelConfig c = DeepSeekV3();
  c.model_type = "deepseek_v2";
  c.vocab_size = 102400;
  c.hidden_size = 5120;
  c.intermediate_size = 12288;
  c.moe_intermediate_size = 1536;
  c.num_hidden_layers = 60;
  c.first_k_dense_replace = 1;
  c.n_routed_experts = 160;
  c.n_shared_experts = 2;
  c.num_experts_per_tok = 6;
  c.selection_bias = false;
  c.num_nextn_predict_layers = 0;
  return c;
}

ModelConfig Gqa(int64_t layers, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t head_dim,
                int64_t dense, int64_t vocab) {
  ModelConfig c;
  c.attention = AttentionKind::kGqa;
  c.num_hidden_layers = layers;
  c.hidden_size = hidden;
  c.num_attention_heads = heads;
  c.num_key_value_heads = kv_heads;
  c.head_dim = head_dim;
  c.intermediate_size = dense;
  c.vocab_size = vocab;
  return c;
}

TEST(CostTest, DeepSeekV3) {
  const ModelCost cost = CostOf(DeepSeekV3(), 4096);
  EXPECT_EQ(cost.parameters, 671'026'419'200);
  EXPECT_EQ(cost.active, 37'552'297'472);
  EXPECT_EQ(cost.mtp_parameters, 11'610'068'224);
  EXPECT_EQ(cost.mtp_active, 688'100'608);
  EXPECT_NEAR(cost.train_flops / 1e9, 249.81, 0.005);
  EXPECT_NEAR((cost.train_flops + cost.train_flops_mtp) / 1e9, 259.99, 0.005);
  EXPECT_DOUBLE_EQ(3 * cost.forward_flops, cost.train_flops);
  EXPECT_EQ(cost.kv_bytes, 70'272);
}

TEST(CostTest, DeepSeekV2AndLite) {
  const ModelCost v2 = CostOf(DeepSeekV2(), 4096);
  EXPECT_EQ(v2.parameters, 235'741'434'880);
  EXPECT_EQ(v2.active, 21'375'800'320);
  ModelConfig lite = DeepSeekV2();
  lite.hidden_size = 2048;
  lite.intermediate_size = 10944;
  lite.moe_intermediate_size = 1408;
  lite.num_hidden_layers = 27;
  lite.num_attention_heads = lite.num_key_value_heads = 16;
  lite.q_lora_rank = 0;
  lite.n_routed_experts = 64;
  const ModelCost cost = CostOf(lite, 4096);
  EXPECT_EQ(cost.parameters, 15'706'484'224);
  EXPECT_EQ(cost.active, 2'661'150'208);
}

TEST(CostTest, ModelsOfOtherFamilies) {
  ModelConfig qwen = Gqa(48, 2048, 32, 4, 128, 6144, 151936);
  qwen.n_routed_experts = 128;
  qwen.num_experts_per_tok = 8;
  qwen.moe_intermediate_size = 768;
  qwen.qk_norm = true;
  EXPECT_NEAR(CostOf(qwen, 4096).parameters / 1e9, 30.53, 0.005);
  ModelConfig mixtral = Gqa(32, 4096, 32, 8, 128, 14336, 32000);
  mixtral.n_routed_experts = 8;
  mixtral.num_experts_per_tok = 2;
  mixtral.moe_intermediate_size = 14336;
  EXPECT_NEAR(CostOf(mixtral, 4096).parameters / 1e9, 46.70, 0.005);
  const ModelCost llama = CostOf(Gqa(126, 16384, 128, 8, 128, 53248, 128256), 4096);
  EXPECT_NEAR(llama.parameters / 1e9, 405.85, 0.005);
  EXPECT_EQ(llama.parameters, llama.active);
  EXPECT_EQ(llama.kv_bytes, 516'096);
  ModelConfig qwen72 = Gqa(80, 8192, 64, 8, 128, 29568, 152064);
  EXPECT_EQ(CostOf(qwen72, 4096).kv_bytes, 327'680);
}

// What is counted is what is built.
TEST(CostTest, CountsTheElementsOfTheModelThatIsBuilt) {
  for (const std::string& name : TinyNames()) {
    const ModelConfig config = TinyConfig(name);
    const ModelCost cost = CostOf(config, 32);
    Bench bench;
    const Model whole(config, bench.backend(), bench.stream(), {});
    EXPECT_EQ(whole.parameters().elements(), cost.parameters + cost.mtp_parameters) << name;
    const Model without(config, bench.backend(), bench.stream(), {.mtp = false});
    EXPECT_EQ(without.parameters().elements(), cost.parameters) << name;
  }
}

}  // namespace
}  // namespace moebius
