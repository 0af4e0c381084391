// Any layout computes what one rank computes (bars of the parallel runtime).
#include <algorithm>
#include <map>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "optim/shrink.h"
#include "optim/verify.h"
#include "tests/optim/training.h"

namespace moebius {
namespace {

// deepseek_v3 in small: groups, shared expert, selection bias, one dense layer, MTP, sequence loss.
VerifyConfig Config() {
  VerifyConfig c;
  c.model = TinyConfig();
  c.model.num_hidden_layers = 8;
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

// A config with a seed at which rounding turns no choice over, and what one rank computes.
struct Reference {
  explicit Reference(VerifyConfig c) : config(std::move(c)), result(*RunReference(config, 2, 1e-6, 20)) {}
  VerifyConfig config;
  LayoutResult result;
};

const Reference& OneRank() {
  static const Reference reference(Config());
  return reference;
}

void ExpectEqual(const Reference& reference, const Layout& layout, const VerifyBounds& bounds = {}) {
  const absl::StatusOr<LayoutResult> result = RunLayout(reference.config, layout, {}, 2);
  ASSERT_TRUE(result.ok()) << std::string(result.status().message());
  const LayoutDifference d = Compare(*result, reference.result);
  EXPECT_LE(d.gradient, bounds.gradient) << d.tensor;
  EXPECT_EQ(d.counts, 0);
  EXPECT_EQ(d.later_counts, 0);
  EXPECT_EQ(d.bias, "");
  EXPECT_LE(d.loss, bounds.loss) << "step " << d.step << ", smallest routing margin "
                                 << SmallestMargin(reference.result);
  EXPECT_EQ(d.torn_replica, "");
  EXPECT_EQ(Judge(d, reference.result, bounds), Verdict::kEqual);
}

// A layout as part of a test's name.
std::string NameOf(const Layout& l) {
  return Concat(l.schedule.substr(0, 1) == "1" ? "" : Concat(l.schedule, "_"), "pp", l.pipeline, "_dp",
                l.data, "_ep", l.expert);
}

class EqualityTest : public testing::TestWithParam<Layout> {};

TEST_P(EqualityTest, GivesGradientsCountsAndLossesOfOneRank) { ExpectEqual(OneRank(), GetParam()); }

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

INSTANTIATE_TEST_SUITE_P(Layouts, EqualityTest, testing::ValuesIn(Layouts()),
                         [](const auto& info) { return NameOf(info.param); });

// Other models and batches, each on the layouts that could break it.
struct OtherModel {
  const char* name;
  void (*change)(VerifyConfig& c);
  std::vector<Layout> layouts;
  VerifyBounds bounds = {};
};

void MakeQwen3Moe(VerifyConfig& c) {
  ModelConfig m;
  m.model_type = "qwen3_moe";
  m.attention = AttentionKind::kGqa;
  m.vocab_size = 40;
  m.hidden_size = 16;
  m.intermediate_size = 24;
  m.moe_intermediate_size = 8;
  m.num_hidden_layers = 8;
  m.num_attention_heads = 4;
  m.num_key_value_heads = 2;
  m.head_dim = 4;
  m.n_routed_experts = 8;
  m.num_experts_per_tok = 3;
  m.scoring = Scoring::kSoftmax;
  m.qk_norm = true;
  m.decoder_sparse_step = 2;
  m.max_position_embeddings = 64;
  c.model = m;
  c.train.auxiliary_loss = 1e-2;
  c.train.router_z_loss = 1e-3;
}

// Every token to two experts of the first group, which the first expert rank holds.
void SkewRouting(VerifyConfig& c) {
  c.selection_bias.assign(8, 0);
  c.selection_bias[0] = c.selection_bias[1] = 1.5f;
}

const Layout kPp2{.pipeline = 2}, kDp2{.data = 2}, kEp2{.expert = 2}, kEp4{.expert = 4};
const Layout kPp2DpEp{.pipeline = 2, .data = 2, .expert = 2};
const Layout kDualPipe{.pipeline = 2, .schedule = "dualpipe"};
const Layout kDualPipeEp{.pipeline = 2, .expert = 2, .schedule = "dualpipe"};
const Layout kDualPipeV{.pipeline = 2, .expert = 2, .schedule = "dualpipev"};
const Layout kZbv{.pipeline = 2, .data = 2, .schedule = "zbv"};
const Layout kZbH1{.pipeline = 4, .schedule = "zb_h1"};

const std::vector<OtherModel>& Cases() {
  static const std::vector<OtherModel> cases = {
      {"gqa_softmax", MakeQwen3Moe, {kPp2DpEp, kEp4, kDualPipeV}},
      {"gqa_softmax_tied",
       [](VerifyConfig& c) {
         MakeQwen3Moe(c);
         c.model.tie_word_embeddings = true;
       },
       {kPp2, kDualPipeEp, kZbv}},
      {"tied_without_mtp",
       [](VerifyConfig& c) {
         c.model.tie_word_embeddings = true;
         c.model.num_nextn_predict_layers = 0;
       },
       {kPp2DpEp, kDualPipe, kZbH1}},
      {"tied_with_mtp", [](VerifyConfig& c) { c.model.tie_word_embeddings = true; }, {kPp2, kDualPipeV}},
      {"untied_without_mtp",
       [](VerifyConfig& c) { c.model.num_nextn_predict_layers = 0; },
       {kPp2, kDualPipeEp, kZbH1}},
      {"mtp_without_weight", [](VerifyConfig& c) { c.train.mtp_loss_weight = 0; }, {kPp2DpEp, kDualPipe}},
      {"two_mtp_depths",
       [](VerifyConfig& c) { c.model.num_nextn_predict_layers = 2; },
       {kPp2DpEp, kDualPipeV, kZbH1}},
      {"seven_layers",
       [](VerifyConfig& c) { c.model.num_hidden_layers = 7; },
       {{.pipeline = 4},
        {.pipeline = 2, .schedule = "zbv"},
        {.pipeline = 2, .expert = 2, .schedule = "interleaved"},
        {.pipeline = 4, .schedule = "dualpipe"}}},
      {"dense_model",
       [](VerifyConfig& c) {
         c.model.n_routed_experts = 0;
         c.model.n_shared_experts = 0;
         c.model.num_nextn_predict_layers = 0;
         c.model.selection_bias = false;
         c.model.n_group = c.model.topk_group = 1;
       },
       {kZbv, {.pipeline = 2, .data = 4}}},
      {"recompute_blocks",
       [](VerifyConfig& c) { c.train.recompute.blocks = true; },
       {kPp2DpEp, kDualPipeV, kZbH1}},
      {"recompute_parts",
       [](VerifyConfig& c) { c.train.recompute = {.norms = true, .mla_up = true, .swiglu = true}; },
       {kPp2DpEp, kDualPipe}},
      {"uneven_microbatches",
       [](VerifyConfig& c) { c.train.microbatch_sequences = 3; },
       {kDp2, {.pipeline = 2, .expert = 2}, {.pipeline = 2, .schedule = "dualpipe"}}},
      {"whole_share_at_once", [](VerifyConfig& c) { c.train.microbatch_sequences = 0; }, {kPp2DpEp, kEp4}},
      {"documents", [](VerifyConfig& c) { c.document_mask = true; }, {kPp2DpEp, kDualPipeV}},
      {"skewed_routing", SkewRouting, {kEp2, kEp4, kPp2DpEp, kDualPipeV}},
      // Two positions: the second MTP depth has none.
      {"depth_without_positions",
       [](VerifyConfig& c) {
         c.length = 2;
         c.model.num_nextn_predict_layers = 2;
       },
       {kPp2DpEp, kDualPipeV}},
      {"one_token_sequences",
       [](VerifyConfig& c) {
         c.length = 1;
         c.model.num_nextn_predict_layers = 0;
       },
       {kEp4, kPp2DpEp}},
      {"small_moments_and_average",
       [](VerifyConfig& c) {
         c.train.optimizer.moments = DType::kBF16;
         c.train.optimizer.ema_decay = 0.9;
       },
       {kPp2DpEp}},
      {"no_clipping_no_decay",
       [](VerifyConfig& c) {
         c.train.clip_norm = 0;
         c.train.optimizer.weight_decay = 0;
       },
       {kDp2}},
      // Values are rounded where they cross ranks as they are where they do not, but sums over microbatches
      // and replicas differ in order, and a rounding that turns over is one in 256.
      {"bf16",
       [](VerifyConfig& c) { c.act = DType::kBF16; },
       {kDp2, kEp2, kPp2, kPp2DpEp, kDualPipeV},
       {.gradient = 2e-2, .loss = 5e-3}},
  };
  return cases;
}

VerifyConfig ConfigOf(const OtherModel& which) {
  VerifyConfig c = Config();
  c.steps = c.train.steps = 2;
  which.change(c);
  return c;
}

struct CaseOnLayout {
  const OtherModel* which;
  Layout layout;
};

class OtherModelsTest : public testing::TestWithParam<CaseOnLayout> {};

TEST_P(OtherModelsTest, GiveGradientsCountsAndLossesOfOneRank) {
  static std::map<std::string, Reference> references;
  const OtherModel& which = *GetParam().which;
  auto found = references.find(which.name);
  if (found == references.end()) found = references.emplace(which.name, ConfigOf(which)).first;
  ExpectEqual(found->second, GetParam().layout, which.bounds);
}

std::vector<CaseOnLayout> AllCases() {
  std::vector<CaseOnLayout> out;
  for (const OtherModel& each : Cases()) {
    for (const Layout& layout : each.layouts) out.push_back({&each, layout});
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Cases, OtherModelsTest, testing::ValuesIn(AllCases()), [](const auto& info) {
  return Concat(info.param.which->name, "__", NameOf(info.param.layout));
});

}  // namespace
}  // namespace moebius
