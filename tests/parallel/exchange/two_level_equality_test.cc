// Models whose expert groups lie on several nodes compute what one rank computes, whichever way tokens go.
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "optim/verify.h"
#include "tests/optim/training.h"

namespace moebius {
namespace {

// deepseek_v3 in small, as in equality_test.cc, with fewer layers and more choices.
VerifyConfig TwoNodes() {
  VerifyConfig c;
  c.model = TinyConfig();
  c.model.num_hidden_layers = 4;
  c.model.num_experts_per_tok = 4;
  c.model.topk_group = 2;
  c.train.steps = 4;
  c.train.microbatch_sequences = 1;
  c.train.schedule.lr = 3e-3;
  c.train.bias_update_speed = 0.01;
  c.train.sequence_loss = 1e-2;
  c.sequences = 16;
  c.length = 12;
  c.steps = 4;
  return c;
}

struct OnOneRank {
  OnOneRank() : config(TwoNodes()), result(*RunReference(config, 2, 1e-6, 20)) {}
  VerifyConfig config;
  LayoutResult result;
};
const OnOneRank& TwoNodesOnOneRank() {
  static const OnOneRank reference;
  return reference;
}

struct Nodes {
  Layout layout;
  int ranks_per_node;
};

LayoutResult RunOn(const VerifyConfig& config, Layout layout, int ranks_per_node,
                   const ExchangeOptions& exchange) {
  layout.exchange = exchange;
  absl::StatusOr<LayoutResult> result = RunLayout(config, layout, {.ranks_per_node = ranks_per_node}, 2);
  CHECK(result.ok()) << result.status();
  return *std::move(result);
}

class TwoLevelEqualityTest : public testing::TestWithParam<Nodes> {};

INSTANTIATE_TEST_SUITE_P(Layouts, TwoLevelEqualityTest,
                         testing::Values(Nodes{{.expert = 4}, 2}, Nodes{{.expert = 8}, 4},
                                         Nodes{{.expert = 8}, 2}, Nodes{{.expert = 4}, 1},
                                         Nodes{{.data = 2, .expert = 4}, 2},
                                         Nodes{{.pipeline = 2, .expert = 4, .schedule = "dualpipev"}, 2}),
                         [](const auto& info) {
                           const Layout& l = info.param.layout;
                           return Concat("pp", l.pipeline, "_dp", l.data, "_ep", l.expert, "_nodes_of_",
                                         info.param.ranks_per_node);
                         });

TEST_P(TwoLevelEqualityTest, GivesGradientsCountsAndLossesOfOneRankAndTheBitsOfFlat) {
  const auto& [layout, ranks_per_node] = GetParam();
  const VerifyConfig& config = TwoNodesOnOneRank().config;
  const LayoutResult two = RunOn(config, layout, ranks_per_node, {.kind = ExchangeKind::kTwoLevel});
  const LayoutDifference d = Compare(two, TwoNodesOnOneRank().result);
  EXPECT_LE(d.gradient, 1e-5) << d.tensor;
  EXPECT_EQ(d.counts, 0);
  EXPECT_LE(d.loss, 1e-5) << "step " << d.step;
  EXPECT_EQ(d.torn_replica, "");
  const LayoutResult flat = RunOn(config, layout, ranks_per_node, {.kind = ExchangeKind::kFlat});
  EXPECT_EQ(two.gradients, flat.gradients);
  for (size_t i = 0; i < two.steps.size(); ++i) EXPECT_EQ(two.steps[i].loss, flat.steps[i].loss);
  // The same tokens: fewer bytes between nodes, unless every node is a rank and every choice another node.
  EXPECT_LT(two.steps[0].bytes_between, flat.steps[0].bytes_between);
}

// Nobody reads the routing on the host, and rows that nobody has sent lie behind the experts' own.
TEST_P(TwoLevelEqualityTest, GatheringGivesGradientsCountsAndLossesOfOneRank) {
  const auto& [layout, ranks_per_node] = GetParam();
  const LayoutResult gather =
      RunOn(TwoNodesOnOneRank().config, layout, ranks_per_node, {.kind = ExchangeKind::kGather});
  const LayoutDifference d = Compare(gather, TwoNodesOnOneRank().result);
  EXPECT_LE(d.gradient, 1e-5) << d.tensor;
  EXPECT_EQ(d.counts, 0);
  EXPECT_LE(d.loss, 1e-5) << "step " << d.step;
  EXPECT_EQ(d.torn_replica, "");
}

TEST(TwoLevelEqualityTest, RoundedRowsKeepTheBitsOfFlatAndComeCloseToOneRank) {
  const ExchangeOptions rounded{
      .kind = ExchangeKind::kTwoLevel, .dispatch = WireFormat::kF8, .combine = WireFormat::kBF16};
  ExchangeOptions flat = rounded;
  flat.kind = ExchangeKind::kFlat;
  const VerifyConfig& config = TwoNodesOnOneRank().config;
  const LayoutResult a = RunOn(config, Layout{.expert = 4}, 2, rounded);
  const LayoutResult b = RunOn(config, Layout{.expert = 4}, 2, flat);
  EXPECT_EQ(a.gradients, b.gradients);
  // Tokens whose choice hangs on a rounding may go elsewhere, so this is no bound of the rounding itself.
  EXPECT_GT(Compare(a, TwoNodesOnOneRank().result).gradient, 1e-5);
  for (size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_NEAR(a.steps[i].loss, TwoNodesOnOneRank().result.steps[i].loss,
                0.02 * TwoNodesOnOneRank().result.steps[i].loss);
  }
}

TEST(TwoLevelEqualityTest, ChunksOfExpertsUnderSkewGiveGradientsOfOneRank) {
  VerifyConfig config = TwoNodes();
  config.selection_bias.assign(8, 0.0f);
  for (int e = 0; e < 4; ++e) config.selection_bias[e] = 10;  // every token to the experts of node 0
  const LayoutResult whole = *RunReference(config, 2, 1e-6, 20);
  config.train.recompute.max_expert_rows = 5;
  for (const ExchangeKind kind : {ExchangeKind::kTwoLevel, ExchangeKind::kGather}) {
    const LayoutDifference d = Compare(RunOn(config, {.expert = 4}, 2, {.kind = kind}), whole);
    EXPECT_LE(d.gradient, 1e-5) << d.tensor;
    EXPECT_EQ(d.counts, 0);
    EXPECT_LE(d.loss, 1e-5) << "step " << d.step;
  }
}

TEST(TwoLevelEqualityTest, UnevenNodesAreRefused) {
  Layout layout{.expert = 4};
  layout.exchange.kind = ExchangeKind::kTwoLevel;
  const absl::StatusOr<LayoutResult> result = RunLayout(TwoNodes(), layout, {.ranks_per_node = 3}, 1);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
}

}  // namespace
}  // namespace moebius
