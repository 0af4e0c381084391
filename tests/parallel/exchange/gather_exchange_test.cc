// The gathering token exchange: rows of the flat one, sums as its header defines them, the bytes of its
// formula.
#include "gtest/gtest.h"
#include "tests/parallel/exchange/exchanges.h"

namespace moebius {
namespace {

std::vector<ExchangeCase> Cases() {
  std::vector<ExchangeCase> out;
  for (const ExchangeCase& c : ExchangeCases()) {
    if (c.options.dispatch == WireFormat::kAct && c.options.combine == WireFormat::kAct) out.push_back(c);
  }
  return out;
}

class GatherExchangeTest : public testing::TestWithParam<ExchangeCase> {};

INSTANTIATE_TEST_SUITE_P(Cases, GatherExchangeTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// A token's y or dx by the definition in gather_exchange.h.
std::vector<float> SumByRanks(const ExchangeCase& c, int rank, int64_t t, const char* what,
                              const std::vector<float>& add) {
  const auto rounded = [&](float x) { return c.act == DType::kBF16 ? BF16::FromFloat(x).ToFloat() : x; };
  const std::vector<float> row = TokenOf(c, rank, t, what);
  const std::vector<int32_t> experts = c.ExpertsOf(rank, t);
  std::vector<float> out(c.hidden);
  for (int64_t i = 0; i < c.hidden; ++i) {
    float sum = 0;
    for (int peer = 0; peer < c.ranks; ++peer) {
      float part = 0;
      for (int64_t k = 0; k < c.top_k; ++k) {
        if (experts[k] / c.experts_per_rank() != peer) continue;
        part += ExpertOf(c, row[i], experts[k], WeightOf(c, rank, t, k));
      }
      sum += rounded(part);
    }
    out[i] = rounded(sum);
    if (!add.empty()) out[i] = rounded(add[i] + out[i]);
  }
  return out;
}

TEST_P(GatherExchangeTest, RowsAreThoseOfTheFlatExchangeAndSumsThoseOfTheDefinition) {
  const ExchangeCase& c = GetParam();
  const auto flat = RunExchange(c, ExchangeKind::kFlat), gather = RunExchange(c, ExchangeKind::kGather);
  ASSERT_TRUE(flat.ok()) << flat.status();
  ASSERT_TRUE(gather.ok()) << gather.status();
  for (int rank = 0; rank < c.ranks; ++rank) {
    const RankResult &want = (*flat)[rank], &got = (*gather)[rank];
    EXPECT_EQ(got.offsets, want.offsets);
    EXPECT_EQ(got.rows, want.rows);
    EXPECT_EQ(got.row_weights, want.row_weights);
    EXPECT_EQ(got.d_rows, want.d_rows);
    EXPECT_EQ(got.dweights, want.dweights);
    std::vector<float> y, dx;
    for (int64_t t = 0; t < c.tokens_of(rank); ++t) {
      const std::vector<float> a = SumByRanks(c, rank, t, "x", TokenOf(c, rank, t, "x"));
      const std::vector<float> b = SumByRanks(c, rank, t, "dy", {});
      y.insert(y.end(), a.begin(), a.end());
      dx.insert(dx.end(), b.begin(), b.end());
    }
    EXPECT_EQ(got.y, y);
    EXPECT_EQ(got.dx, dx);
  }
}

TEST_P(GatherExchangeTest, BytesOfEachLinkClassAreThoseOfTheFormulaWhateverWasChosen) {
  ExchangeCase c = GetParam();
  for (const Routing& route : {c.route, ExpertsFrom(0, c.top_k)}) {
    c.route = route;
    const auto results = RunExchange(c, ExchangeKind::kGather);
    ASSERT_TRUE(results.ok()) << results.status();
    std::array<RankResult::Bytes, 4> sent{};
    for (const RankResult& result : *results) {
      for (int phase = 0; phase < 4; ++phase) {
        for (int link = 0; link < kNumLinkClasses; ++link) sent[phase][link] += result.bytes[phase][link];
      }
    }
    EXPECT_EQ(sent, BytesByFormula(c, ExchangeKind::kGather));
  }
}

}  // namespace
}  // namespace moebius
