// Any layout computes what one rank computes (bars of the parallel runtime).
#include <algorithm>

#include "gtest/gtest.h"
#include "optim/verify.h"

namespace moebius {
namespace {

// deepseek_v3 in small: groups, shared expert, selection bias, one dense layer, MTP, sequence loss.
VerifyConfig Config() {
  VerifyConfig c;
  ModelConfig& m = c.model;
  m.vocab_size = 40;
  m.hidden_size = 16;
  m.intermediate_size = 24;
  m.moe_intermediate_size = 8;
  m.num_hidden_layers = 8;
  m.num_attention_heads = m.num_key_value_heads = 2;
  m.q_lora_rank = 12;
  m.kv_lora_rank = 8;
  m.qk_nope_head_dim = 6;
  m.qk_rope_head_dim = 4;
  m.v_head_dim = 6;
  m.n_routed_experts = 8;
  m.n_shared_experts = 1;
  m.num_experts_per_tok = 2;
  m.n_group = 2;
  m.topk_group = 1;
  m.selection_bias = true;
  m.first_k_dense_replace = 1;
  m.num_nextn_predict_layers = 1;
  m.max_position_embeddings = 64;
  c.train.steps = 10;
  c.train.microbatch_sequences = 1;
  c.train.schedule.lr = 3e-3;
  c.train.bias_update_speed = 0.01;
  c.train.sequence_loss = 1e-2;
  c.sequences = 16;
  c.length = 12;
  c.steps = 10;
  return c;
}

const LayoutResult& OneRank() {
  static const LayoutResult result = *RunLayout(Config(), {}, {}, 2);
  return result;
}

class EqualityTest : public testing::TestWithParam<Layout> {};

TEST_P(EqualityTest, GivesGradientsCountsAndLossesOfOneRank) {
  const absl::StatusOr<LayoutResult> result = RunLayout(Config(), GetParam(), {}, 2);
  ASSERT_TRUE(result.ok()) << std::string(result.status().message());
  const LayoutDifference d = Compare(*result, OneRank());
  EXPECT_LE(d.gradient, 1e-5) << d.tensor;
  EXPECT_EQ(d.counts, 0);
  EXPECT_LE(d.loss, 1e-5) << "step " << d.step;
}

std::vector<Layout> Layouts() {
  std::vector<Layout> out;
  for (const int pipeline : {1, 2, 4}) {
    for (const int expert : {1, 2, 4}) {
      for (const int data : {1, 2, 4, 8}) {
        const Layout layout{.pipeline = pipeline, .data = data, .expert = expert};
        if (layout.ranks() > 1 && layout.ranks() <= 8) out.push_back(layout);
      }
    }
  }
  for (const char* schedule : {"gpipe", "interleaved", "zb_h1", "zbv", "dualpipe", "dualpipev"}) {
    out.push_back({.pipeline = 2, .schedule = schedule});
    out.push_back({.pipeline = 2, .data = 2, .expert = 2, .schedule = schedule});
    out.push_back({.pipeline = 4, .expert = 2, .schedule = schedule});
  }
  out.push_back({.expert = 2, .schedule = "dualpipev"});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Layouts, EqualityTest, testing::ValuesIn(Layouts()), [](const auto& info) {
  const Layout& l = info.param;
  return l.schedule.substr(0, 1) == "1" ? "pp" + std::to_string(l.pipeline) + "_dp" + std::to_string(l.data) +
                                              "_ep" + std::to_string(l.expert)
                                        : l.schedule + "_pp" + std::to_string(l.pipeline) + "_dp" +
                                              std::to_string(l.data) + "_ep" + std::to_string(l.expert);
});

}  // namespace
}  // namespace moebius
