#include "core/generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace moebius {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int32_t Draw(const SamplingParams& params, const std::vector<float>& logits, uint64_t sequence = 0,
             int64_t position = 0) {
  return Sampler(params, sequence, LogProbs::kNo).Sample(logits, position)->id;
}

// How often each id comes out of many draws.
std::map<int32_t, int> Histogram(SamplingParams params, const std::vector<float>& logits, int draws) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[Draw(params, logits, i / 100, i % 100)];
  return counts;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const float x : logits) sum += p.emplace_back(std::exp(x / temperature));
  for (double& x : p) x /= sum;
  return p;
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongEquals) {
  std::vector<float> logits(100, -1.0f);
  logits[71] = logits[37] = logits[99] = 2.5f;
  EXPECT_EQ(Draw({.temperature = 0}, logits), 37);
}

TEST(SamplerTest, DrawsInProportionToTheTemperedProbabilities) {
  std::vector<float> logits;
  for (int i = 0; i < 150; ++i) logits.push_back(2.0f * std::sin(0.7f * i));
  const int draws = 30000;
  for (const double temperature : {0.6, 1.0, 1.7}) {
    const std::vector<double> p = Softmax(logits, temperature);
    const auto counts = Histogram({.temperature = temperature}, logits, draws);
    double chi2 = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double expected = p[i] * draws;
      const auto at = counts.find(i);
      const double seen = at == counts.end() ? 0 : at->second;
      chi2 += (seen - expected) * (seen - expected) / expected;
    }
    EXPECT_LT(chi2, 149 + 5 * std::sqrt(2 * 149.0)) << "temperature " << temperature;
  }
}

TEST(SamplerTest, TopKKeepsTheBestAndOfEqualsTheLowerIds) {
  std::vector<float> logits(50, 0.0f);
  logits[10] = 1.0f;  // then 0, 1, 2 of the equals
  for (const auto& [id, count] : Histogram({.top_k = 4}, logits, 4000)) {
    EXPECT_TRUE(id == 10 || id <= 2) << id;
    EXPECT_GT(count, 500) << id;
  }
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatReachesTheMass) {
  // Probabilities .4 .3 .2 .1.
  const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
  EXPECT_EQ(Histogram({.top_p = 0.65}, logits, 3000).size(), 2u);  // .4 .3
  EXPECT_EQ(Histogram({.top_p = 0.75}, logits, 3000).size(), 3u);  // .4 .3 .2
  EXPECT_EQ(Histogram({.top_p = 0.35}, logits, 3000).size(), 1u);
  EXPECT_EQ(Histogram({.top_p = 0.35}, logits, 3000).begin()->first, 1);
  // After top_k the mass is renormalised: .4 / .7 alone reaches .55.
  EXPECT_EQ(Histogram({.top_k = 2, .top_p = 0.55}, logits, 3000).size(), 1u);
}

TEST(SamplerTest, TopPOverALargeVocabularyMatchesItsDefinition) {
  std::vector<float> logits;
  for (int i = 0; i < 5000; ++i) logits.push_back(0.001f * ((i * 2654435761u) % 4999));
  const std::vector<double> p = Softmax(logits, 1);
  std::vector<int> order(p.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b] || (p[a] == p[b] && a < b); });
  double mass = 0, threshold = 0;
  for (const int i : order) {
    threshold = p[i];
    if ((mass += p[i]) >= 0.3) break;
  }
  for (int i = 0; i < 1000; ++i) {
    EXPECT_GE(p[Draw({.top_p = 0.3}, logits, 1, i)], threshold * (1 - 1e-5));
  }
}

TEST(SamplerTest, ATokenDependsOnSeedSequenceAndPositionAlone) {
  const std::vector<float> logits(1000, 0.0f);
  Sampler sampler({.seed = 5}, 3, LogProbs::kNo);
  const int32_t first = sampler.Sample(logits, 7)->id;
  sampler.Sample(logits, 8).IgnoreError();
  EXPECT_EQ(sampler.Sample(logits, 7)->id, first);
  EXPECT_EQ(Draw({.seed = 5}, logits, 3, 7), first);
  EXPECT_NE(Draw({.seed = 6}, logits, 3, 7), first);
  EXPECT_NE(Draw({.seed = 5}, logits, 4, 7), first);
  EXPECT_NE(Draw({.seed = 5}, logits, 3, 6), first);
}

TEST(SamplerTest, LogProbabilitiesAreTheModelsAndTheDistributionsDrawnFrom) {
  const std::vector<float> logits = {1.0f, 3.0f, 2.0f, -1.0f, -kInfinity};
  const std::vector<double> model = Softmax(logits, 1);
  const std::vector<double> cold = Softmax({1.0f, 3.0f, 2.0f}, 0.5);
  Sampler sampler({.temperature = 0.5, .top_k = 3}, 0, LogProbs::kYes);
  for (int i = 0; i < 200; ++i) {
    const SampledToken token = *sampler.Sample(logits, i);
    ASSERT_LT(token.id, 3);
    EXPECT_NEAR(token.logprob, std::log(model[token.id]), 1e-5);
    EXPECT_NEAR(token.sampling_logprob, std::log(cold[token.id]), 1e-5);
  }
  const SampledToken greedy = *Sampler({.temperature = 0}, 0, LogProbs::kYes).Sample(logits, 0);
  EXPECT_NEAR(greedy.logprob, std::log(model[1]), 1e-5);
  EXPECT_EQ(greedy.sampling_logprob, 0);
}

TEST(SamplerTest, ForbiddenTokensAreNeverDrawn) {
  std::vector<float> logits(300, -kInfinity);
  logits[0] = 0.0f;
  logits[200] = 0.5f;
  for (const auto& [id, count] : Histogram({}, logits, 2000)) EXPECT_TRUE(id == 0 || id == 200) << id;
  for (const auto& [id, count] : Histogram({.top_p = 0.99}, logits, 2000))
    EXPECT_TRUE(id == 0 || id == 200) << id;
}

TEST(SamplerTest, ATinyTemperatureIsGreedyAndLargeLogitsDoNotOverflow) {
  std::vector<float> logits(64, -3e30f);
  logits[9] = 1e30f;
  EXPECT_EQ(Draw({.temperature = 1e-300}, logits), 9);
  EXPECT_EQ(Draw({.temperature = 1}, logits), 9);
}

TEST(SamplerTest, LogitsThatAreNotFiniteAreAnError) {
  for (const float bad : {std::nanf(""), kInfinity}) {
    for (const double temperature : {0.0, 1.0}) {
      std::vector<float> logits(40, 1.0f);
      logits[23] = bad;
      EXPECT_EQ(ExitCode(Sampler({.temperature = temperature}, 0, LogProbs::kNo).Sample(logits, 0).status()),
                kExitBadNumbers);
    }
  }
  EXPECT_FALSE(Sampler({}, 0, LogProbs::kNo).Sample(std::vector<float>(40, -kInfinity), 0).ok());
}

TEST(SamplerTest, ParametersOutsideTheirRangeAreUsageErrors) {
  EXPECT_TRUE(Validate(SamplingParams{}).ok());
  for (const SamplingParams& bad :
       {SamplingParams{.temperature = -1}, SamplingParams{.temperature = std::nan("")},
        SamplingParams{.top_k = -1}, SamplingParams{.top_p = 0}, SamplingParams{.top_p = 1.5}}) {
    EXPECT_EQ(ExitCode(Validate(bad)), kExitUsage);
  }
}

}  // namespace
}  // namespace moebius
