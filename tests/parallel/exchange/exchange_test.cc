// The flat and the two-level token exchange: the same results, to the bit, as plain loops give; the bytes of
// their formulas; every extreme of routing; failures in their midst.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "parallel/exchange/fp8_tiles.h"
#include "parallel/exchange/row_format.h"
#include "parallel/exchange/two_level_plan.h"
#include "parallel/node_map.h"
#include "tests/parallel/exchange/exchanges.h"

namespace moebius {
namespace {

class ExchangeTest : public testing::TestWithParam<ExchangeCase> {};

INSTANTIATE_TEST_SUITE_P(Cases, ExchangeTest, testing::ValuesIn(ExchangeCases()),
                         [](const auto& info) { return info.param.name; });

// What a row is when it has travelled.
std::vector<float> Travelled(const ExchangeCase& c, WireFormat wire, std::vector<float> row) {
  std::vector<uint8_t> bytes(RowBytes(FormatOf(wire, c.act), c.hidden));
  const TensorView view(bytes.data(), DType::kU8, {1, static_cast<int64_t>(bytes.size())});
  std::vector<BF16> narrow(c.hidden);
  for (int64_t i = 0; i < c.hidden; ++i) narrow[i] = BF16::FromFloat(row[i]);
  const bool bf16 = c.act == DType::kBF16;
  const TensorView act(bf16 ? static_cast<void*>(narrow.data()) : row.data(), c.act, {1, c.hidden});
  EncodeRows(act, FormatOf(wire, c.act), view);
  DecodeRows(view, FormatOf(wire, c.act), act);
  for (int64_t i = 0; bf16 && i < c.hidden; ++i) row[i] = narrow[i].ToFloat();
  return row;
}

// A token's y or dx by the definition in row_sums.h.
std::vector<float> SumByDefinition(const ExchangeCase& c, int rank, int64_t t, const char* what,
                                   std::vector<float> add) {
  const RowFormat format = FormatOf(c.options.combine, c.act);
  const auto rounded = [](bool bf16, float x) { return bf16 ? BF16::FromFloat(x).ToFloat() : x; };
  const std::vector<float> row = Travelled(c, c.options.dispatch, TokenOf(c, rank, t, what));
  const std::vector<int32_t> experts = c.ExpertsOf(rank, t);
  std::vector<float> out(c.hidden);
  for (int64_t i = 0; i < c.hidden; ++i) {
    float sum = add.empty() ? 0 : add[i];
    for (int node = 0; node < c.ranks / c.ranks_per_node; ++node) {
      float part = 0;
      bool first = true;
      for (int64_t k = 0; k < c.top_k; ++k) {
        if (c.node_of(static_cast<int>(experts[k] / c.experts_per_rank())) != node) continue;
        const float term =
            rounded(format == RowFormat::kBF16, ExpertOf(c, row[i], experts[k], WeightOf(c, rank, t, k)));
        if (node == c.node_of(rank)) {
          sum += term;
        } else {
          part = first ? term : part + term;
          first = false;
        }
      }
      if (!first) sum += rounded(format == RowFormat::kBF16, part);
    }
    out[i] = rounded(c.act == DType::kBF16, sum);
  }
  return out;
}

TEST_P(ExchangeTest, BothGiveTheBitsOfTheDefinition) {
  const ExchangeCase& c = GetParam();
  const auto flat = RunExchange(c, ExchangeKind::kFlat), two = RunExchange(c, ExchangeKind::kTwoLevel);
  ASSERT_TRUE(flat.ok()) << flat.status();
  ASSERT_TRUE(two.ok()) << two.status();
  for (int rank = 0; rank < c.ranks; ++rank) {
    EXPECT_TRUE((*flat)[rank] == (*two)[rank]) << "rank " << rank;
    const RankResult& got = (*two)[rank];
    std::vector<float> rows, row_weights, d_rows, y, dx, dweights;
    for (int64_t e = 0; e < c.experts_per_rank(); ++e) {
      EXPECT_EQ(static_cast<size_t>(got.offsets[e]), row_weights.size());
      for (int source = 0; source < c.ranks; ++source) {
        for (int64_t t = 0; t < c.tokens_of(source); ++t) {
          const std::vector<int32_t> experts = c.ExpertsOf(source, t);
          for (int64_t k = 0; k < c.top_k; ++k) {
            if (experts[k] != rank * c.experts_per_rank() + e) continue;
            const auto append = [&](std::vector<float>& to, const char* what) {
              const std::vector<float> row = Travelled(c, c.options.dispatch, TokenOf(c, source, t, what));
              to.insert(to.end(), row.begin(), row.end());
            };
            append(rows, "x");
            append(d_rows, "dy");
            row_weights.push_back(WeightOf(c, source, t, k));
          }
        }
      }
    }
    EXPECT_EQ(got.rows, rows);
    EXPECT_EQ(got.d_rows, d_rows);
    EXPECT_EQ(got.row_weights, row_weights);
    for (int64_t t = 0; t < c.tokens_of(rank); ++t) {
      const std::vector<float> a = SumByDefinition(c, rank, t, "x", TokenOf(c, rank, t, "x"));
      const std::vector<float> b = SumByDefinition(c, rank, t, "dy", {});
      y.insert(y.end(), a.begin(), a.end());
      dx.insert(dx.end(), b.begin(), b.end());
      const float dy = Travelled(c, c.options.dispatch, TokenOf(c, rank, t, "dy"))[0];
      for (int64_t k = 0; k < c.top_k; ++k) dweights.push_back(dy * WeightOf(c, rank, t, k));
    }
    EXPECT_EQ(got.y, y);
    EXPECT_EQ(got.dx, dx);
    EXPECT_EQ(got.dweights, dweights);
  }
}

TEST_P(ExchangeTest, BytesOfEachLinkClassAreThoseOfTheFormula) {
  const ExchangeCase& c = GetParam();
  for (const ExchangeKind kind : {ExchangeKind::kFlat, ExchangeKind::kTwoLevel}) {
    const auto results = RunExchange(c, kind);
    ASSERT_TRUE(results.ok()) << results.status();
    std::array<RankResult::Bytes, 4> sent{};
    for (const RankResult& result : *results) {
      for (int phase = 0; phase < 4; ++phase) {
        for (int link = 0; link < kNumLinkClasses; ++link) sent[phase][link] += result.bytes[phase][link];
      }
    }
    EXPECT_EQ(sent, BytesByFormula(c, kind)) << (kind == ExchangeKind::kFlat ? "flat" : "two-level");
  }
}

// Eight choices of each token, all on the other node: the token crosses once, and so does its sum.
TEST(TwoLevelExchangeTest, ATokenCrossesToANodeOnce) {
  ExchangeCase c = NewExchangeCase("", 8, 4);
  c.top_k = 8;
  c.experts = 16;
  c.tokens = {10};
  c.route = [](int rank, int64_t) { return ExpertsFrom(rank < 4 ? 8 : 0, 8)(0, 0); };
  const auto results = RunExchange(c, ExchangeKind::kTwoLevel);
  ASSERT_TRUE(results.ok()) << results.status();
  for (const RankResult& result : *results) {
    EXPECT_EQ(result.bytes[0][kLinkBetweenNodes], 10 * c.hidden * 4 + 10 * 8 * 8 + 16);
    EXPECT_EQ(result.bytes[1][kLinkBetweenNodes], 10 * c.hidden * 4);
    EXPECT_EQ(result.bytes[2][kLinkBetweenNodes], 10 * c.hidden * 4);
    EXPECT_EQ(result.bytes[3][kLinkBetweenNodes], 10 * c.hidden * 4 + 10 * 8 * 4);
  }
}

TEST(TwoLevelExchangeTest, NodesThatAreNotContiguousInTheGroupKeepTheOrderOfSources) {
  // Ranks 0, 2 on node 0; 1, 3 on node 1: rows of an expert still come by source rank.
  const NodeMap nodes({5, 9, 5, 9});
  EXPECT_EQ(nodes.nodes(), 2);
  EXPECT_EQ(nodes.at(1, 0), 1);
  EXPECT_EQ(nodes.local_of(2), 1);
  // [L, E = 1, N] rows.
  const ReceivePlan plan = PlanReceive({1, 10, 100, 1000}, 1, nodes);
  EXPECT_EQ(plan.starts, (std::vector<int64_t>{0, 1, 11, 111}));
  EXPECT_EQ(plan.offsets, (std::vector<int64_t>{0, 1111}));
}

TEST(TwoLevelExchangeTest, Fp8ErrorsStayWithinTheBoundOfEachTerm) {
  ExchangeCase c = NewExchangeCase("", 4, 2);
  c.hidden = 300;
  const auto exact = RunExchange(c, ExchangeKind::kTwoLevel);
  c.options.dispatch = WireFormat::kF8;
  const auto rounded = RunExchange(c, ExchangeKind::kTwoLevel);
  ASSERT_TRUE(exact.ok() && rounded.ok());
  double worst = 0;
  for (int rank = 0; rank < c.ranks; ++rank) {
    const std::vector<float>&a = (*exact)[rank].dx, &b = (*rounded)[rank].dx;
    for (size_t i = 0; i < a.size(); ++i) {
      // dx is dy times positive numbers, so its relative error is dy's; |dy| < 2.4.
      const double bound =
          std::max(std::abs(static_cast<double>(a[i])) / 16, 2.4 * 30 * std::exp2(-17.8)) * (1 + 1e-5);
      EXPECT_LE(std::abs(static_cast<double>(a[i] - b[i])), bound);
      if (a[i] != 0) worst = std::max(worst, std::abs((a[i] - b[i]) / double{a[i]}));
    }
  }
  EXPECT_GT(worst, 0.03);  // it does round
}

// A rank that fails somewhere in the middle: nobody crashes, nobody hangs, all hear of it.
TEST(TwoLevelExchangeTest, AFailureInTheMidstEndsAllRanks) {
  for (const ExchangeKind kind : {ExchangeKind::kFlat, ExchangeKind::kTwoLevel, ExchangeKind::kGather}) {
    for (int fail_at = 0; fail_at < 8; ++fail_at) {
      ExchangeCase c = NewExchangeCase("", 4, 2);
      c.options = {.dispatch = WireFormat::kF8, .combine = WireFormat::kBF16};
      std::atomic<int> ended = 0;
      const absl::Status status = OnExchangeRanks(c, kind, [&](ExchangeRank& r) -> absl::Status {
        int step = 0;
        const auto fails = [&] { return step++ == fail_at && r.world.rank() == 3; };
        const absl::Status error = absl::InternalError("rank 3 has had enough");
        const auto h = [&] {
          return r.exchange.PostDispatch(r.context, r.memory, r.x, r.experts, r.weights);
        };
        if (fails()) return error;
        const auto handle = h();
        if (fails()) return error;  // with what it has posted still open
        const TensorView rows = r.exchange.WaitDispatch(r.context, *handle).rows;
        if (fails()) return error;
        r.exchange.PostCombine(r.context, *handle, rows);
        if (fails()) return error;
        const TensorView y = r.memory.New(c.act, r.x.shape);
        r.exchange.WaitCombine(r.context, *handle, TensorView(), y);
        if (fails()) return error;
        r.exchange.PostCombineBackward(r.context, r.memory, *handle, r.dy);
        if (fails()) return error;
        const TensorView d_rows = r.exchange.WaitCombineBackward(r.context, *handle);
        const TensorView numbers = r.memory.New(DType::kF32, {d_rows.rows()});
        if (fails()) return error;
        r.exchange.PostDispatchBackward(r.context, *handle, d_rows, numbers);
        if (fails()) return error;
        r.exchange.WaitDispatchBackward(r.context, *handle, TensorView(), y,
                                        r.memory.New(DType::kF32, r.weights.shape));
        ++ended;
        return r.world.status();
      });
      EXPECT_FALSE(status.ok());
      EXPECT_EQ(std::string(status.message()), "rank 3 has had enough") << fail_at;
      EXPECT_LE(ended, 3);  // a rank that still splits the group then never gets here
      if (kind != ExchangeKind::kTwoLevel) {
        EXPECT_EQ(ended, 3);
      }
    }
  }
}

// Two microbatches on their way at once, on one stream.
TEST(TwoLevelExchangeTest, TransfersOfTwoMicrobatchesMayOverlap) {
  const ExchangeCase c = NewExchangeCase("", 4, 2);
  const absl::Status status = OnExchangeRanks(c, ExchangeKind::kTwoLevel, [&](ExchangeRank& r) {
    const auto post = [&] { return r.exchange.PostDispatch(r.context, r.memory, r.x, r.experts, r.weights); };
    const auto a = post(), b = post();
    const TensorView rows_a = r.exchange.WaitDispatch(r.context, *a).rows;
    r.exchange.PostCombine(r.context, *a, rows_a);
    const TensorView rows_b = r.exchange.WaitDispatch(r.context, *b).rows;
    r.exchange.PostCombine(r.context, *b, rows_b);
    const TensorView y_a = r.memory.New(c.act, r.x.shape), y_b = r.memory.New(c.act, r.x.shape);
    r.exchange.WaitCombine(r.context, *a, TensorView(), y_a);
    r.exchange.WaitCombine(r.context, *b, TensorView(), y_b);
    for (int64_t i = 0; i < y_a.elements(); ++i) {
      // Experts that do nothing: K times x, of which three terms round.
      EXPECT_EQ(y_a.as<float>()[i], y_b.as<float>()[i]);
      EXPECT_NEAR(y_a.as<float>()[i], 3 * r.x.as<float>()[i], 1e-5);
    }
    return r.world.status();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(NodeMapTest, TwoLevelsNeedEquallyManyRanksOnEachNode) {
  Layout layout{.expert = 4};
  layout.exchange.kind = ExchangeKind::kTwoLevel;
  EXPECT_TRUE(CheckExchange(layout, {0, 0, 1, 1}).ok());
  EXPECT_TRUE(CheckExchange(layout, {0, 0, 0, 0}).ok());
  EXPECT_TRUE(CheckExchange(layout, {0, 1, 0, 1}).ok());
  const absl::Status uneven = CheckExchange(layout, {0, 0, 0, 1});
  EXPECT_EQ(uneven.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(uneven.message()).find("exchange: FLAT"), std::string::npos) << uneven;
  layout.data = 2;
  EXPECT_FALSE(CheckExchange(layout, {0, 0, 1, 1, 2, 2, 2, 3}).ok());
  layout.exchange = {.kind = ExchangeKind::kFlat, .combine = WireFormat::kF8};
  EXPECT_FALSE(CheckExchange(layout, {0, 0, 1, 1, 2, 2, 3, 3}).ok());
  layout.exchange = {.kind = ExchangeKind::kGather};
  EXPECT_TRUE(CheckExchange(layout, {0, 0, 1, 1, 2, 2, 2, 3}).ok());
  layout.exchange.dispatch = WireFormat::kF8;
  const absl::Status rounded = CheckExchange(layout, {0, 0, 1, 1, 2, 2, 3, 3});
  EXPECT_NE(std::string(rounded.message()).find("parallel.exchange is GATHER"), std::string::npos) << rounded;
}

TEST(NodeMapTest, TheHostTouchesRowsOnlyWhereAnExpertGroupGoesTwoWaysOrRowsChangeTheirFormat) {
  const std::vector<int> two_nodes = {0, 0, 1, 1};
  EXPECT_FALSE(HostTouchesRows({.data = 4}, two_nodes));
  EXPECT_FALSE(HostTouchesRows({.data = 2, .expert = 2}, two_nodes)) << "each group lies within a node";
  EXPECT_FALSE(HostTouchesRows({.pipeline = 2, .expert = 2}, two_nodes));
  EXPECT_TRUE(HostTouchesRows({.data = 2, .expert = 2}, {0, 0, 1, 2})) << "the second group lies on two";
  EXPECT_TRUE(HostTouchesRows({.expert = 4}, two_nodes));
  EXPECT_FALSE(HostTouchesRows({.expert = 4}, {0, 0, 0, 0}));
  Layout layout{.expert = 4};
  layout.exchange.kind = ExchangeKind::kFlat;
  EXPECT_FALSE(HostTouchesRows(layout, two_nodes));
  layout.exchange.kind = ExchangeKind::kGather;
  EXPECT_FALSE(HostTouchesRows(layout, two_nodes));
  layout.exchange = {.kind = ExchangeKind::kFlat, .dispatch = WireFormat::kBF16};
  EXPECT_TRUE(HostTouchesRows(layout, {0, 0, 0, 0}));
}

TEST(NodeMapTest, AutoGoesTwoWaysWhereNodesAllowIt) {
  EXPECT_FALSE(IsTwoLevel(ExchangeKind::kAuto, NodeMap({0, 0, 0, 0})));
  EXPECT_TRUE(IsTwoLevel(ExchangeKind::kAuto, NodeMap({0, 0, 1, 1})));
  EXPECT_FALSE(IsTwoLevel(ExchangeKind::kAuto, NodeMap({0, 0, 0, 1})));
  EXPECT_FALSE(IsTwoLevel(ExchangeKind::kFlat, NodeMap({0, 0, 1, 1})));
  EXPECT_TRUE(IsTwoLevel(ExchangeKind::kTwoLevel, NodeMap({0, 0, 0, 0})));
}

}  // namespace
}  // namespace moebius
