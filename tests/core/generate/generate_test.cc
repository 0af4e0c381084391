#include "core/generate/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/core/generate/tiny_models.h"

namespace moebius {
namespace {

using Ids = std::vector<int32_t>;

class GenerateTest : public testing::Test {
 protected:
  explicit GenerateTest(const std::string& name = "mla")
      : tiny_(TinyConfig(name), DType::kF32), decoder_(tiny_.model(), tiny_.backend(), tiny_.stream(), {}) {}

  std::vector<GenerateResult> Run(const std::vector<GenerateRequest>& requests,
                                  GenerateOptions options = {}) {
    auto results = Generate(decoder_, requests, options);
    EXPECT_TRUE(results.ok()) << results.status();
    return *std::move(results);
  }

  // Requests of many lengths, each ended by length or by a stop token that greedy decoding meets.
  std::vector<GenerateRequest> Mixed(double temperature) {
    std::vector<GenerateRequest> requests;
    for (int i = 0; i < 13; ++i) {
      requests.push_back({.prompt = RandomIds("prompt" + std::to_string(i), 1 + (i * 5) % 17, 113),
                          .max_new = 4 + (i * 7) % 19,
                          .sampling = {.temperature = temperature, .seed = 9},
                          .sequence = static_cast<uint64_t>(i),
                          .stop = {3, 60, 61, 62, 63}});
    }
    return requests;
  }

  TinyModel tiny_;
  Decoder decoder_;
};

TEST_F(GenerateTest, GreedyContinuesWithTheBestTokenOfTheTrainingForward) {
  Ids ids = RandomIds("greedy", 9, 113);
  const GenerateRequest request{.prompt = ids, .max_new = 30, .sampling = {.temperature = 0}};
  const std::vector<GenerateResult> results = Run({request});
  ASSERT_EQ(results[0].tokens.size(), 30u);
  EXPECT_EQ(results[0].reason, StopReason::kLength);
  for (const int32_t token : results[0].tokens) {
    const std::vector<float> logits = tiny_.Logits(ids);
    const float best = *std::max_element(logits.begin(), logits.end());
    EXPECT_GE(logits[token], best - 1e-4f) << "after " << ids.size();
    ids.push_back(token);
  }
}

TEST_F(GenerateTest, ABatchGivesWhatEachRequestGivesAlone) {
  for (const double temperature : {0.0, 1.0}) {
    const std::vector<GenerateRequest> requests = Mixed(temperature);
    for (const int64_t max_batch : {64, 4, 1}) {
      const std::vector<GenerateResult> together = Run(requests, {.max_batch = max_batch});
      for (size_t i = 0; i < requests.size(); ++i) {
        const std::vector<GenerateResult> alone = Run({requests[i]});
        EXPECT_EQ(together[i].tokens, alone[0].tokens) << "request " << i << " batch " << max_batch;
        EXPECT_EQ(together[i].reason, alone[0].reason) << i;
      }
    }
  }
}

TEST_F(GenerateTest, EveryResultIsSaidOnceWhenItEnds) {
  const std::vector<GenerateRequest> requests = Mixed(1.0);
  std::map<size_t, Ids> said;
  std::vector<size_t> order;
  const std::vector<GenerateResult> results =
      Run(requests, {.max_batch = 3, .on_result = [&](size_t i, const GenerateResult& result) {
                       said[i] = result.tokens;
                       order.push_back(i);
                     }});
  ASSERT_EQ(order.size(), requests.size());
  for (size_t i = 0; i < results.size(); ++i) EXPECT_EQ(said[i], results[i].tokens) << i;
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end())) << "short ones end first";
}

TEST_F(GenerateTest, AStopTokenEndsItsSequenceAndIsItsLast) {
  const std::vector<GenerateRequest> requests = Mixed(1.0);
  const std::vector<GenerateResult> results = Run(requests);
  std::map<StopReason, int> seen;
  for (size_t i = 0; i < results.size(); ++i) {
    const Ids& tokens = results[i].tokens;
    const auto stops = [&](int32_t id) {
      return std::count(requests[i].stop.begin(), requests[i].stop.end(), id) > 0;
    };
    ASSERT_FALSE(tokens.empty());
    EXPECT_TRUE(std::none_of(tokens.begin(), tokens.end() - 1, stops));
    EXPECT_EQ(stops(tokens.back()), results[i].reason == StopReason::kStopToken);
    if (results[i].reason == StopReason::kLength) {
      EXPECT_EQ(std::ssize(tokens), requests[i].max_new);
    }
    ++seen[results[i].reason];
  }
  EXPECT_GT(seen[StopReason::kStopToken], 0);
  EXPECT_GT(seen[StopReason::kLength], 0);
}

TEST_F(GenerateTest, SamplesOfOnePromptShareItsPrefillAndDiffer) {
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 10; ++i) {
    requests.push_back({.prompt = RandomIds(i < 6 ? "one" : "two", 8, 113),
                        .max_new = 12,
                        .sequence = static_cast<uint64_t>(i)});
  }
  const std::vector<GenerateResult> results = Run(requests, {.max_batch = 7});
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(results[i].tokens, Run({requests[i]})[0].tokens) << i;
    if (i > 0) {
      EXPECT_NE(results[i].tokens, results[i - 1].tokens) << i;
    }
  }
}

TEST_F(GenerateTest, LogProbabilitiesAreThoseOfScoring) {
  const GenerateRequest request{
      .prompt = RandomIds("score", 7, 113), .max_new = 15, .logprobs = LogProbs::kYes};
  const GenerateResult result = Run({request})[0];
  Ids ids = request.prompt;
  ids.insert(ids.end(), result.tokens.begin(), result.tokens.end());
  const std::vector<float> want = tiny_.LogProbs(ids);
  ASSERT_EQ(result.logprobs.size(), 15u);
  for (size_t i = 0; i < 15; ++i) {
    EXPECT_NEAR(result.logprobs[i], want[request.prompt.size() - 1 + i], 1e-4) << i;
    EXPECT_NEAR(result.sampling_logprobs[i], result.logprobs[i], 1e-5)
        << "temperature 1 draws from the model itself";
  }
}

TEST_F(GenerateTest, TokensAreStreamedInOrderAndTheCallerMayEndARequest) {
  std::vector<GenerateRequest> requests = Mixed(1.0);
  for (GenerateRequest& r : requests) r.stop = {}, r.max_new = 10;
  std::vector<Ids> streamed(requests.size());
  const std::vector<GenerateResult> results =
      Run(requests, {.max_batch = 5, .on_token = [&](size_t i, const SampledToken& token) {
                       streamed[i].push_back(token.id);
                       return i != 2 || streamed[i].size() < 4;
                     }});
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].tokens, streamed[i]);
    EXPECT_EQ(results[i].tokens.size(), i == 2 ? 4u : 10u);
  }
}

TEST_F(GenerateTest, RequestsThatCannotBeServedAreUsageErrorsThatNameThem) {
  const GenerateRequest good{.prompt = {1, 2}, .max_new = 3};
  const auto error = [&](GenerateRequest bad) {
    const auto results = Generate(decoder_, std::vector<GenerateRequest>{good, bad}, {});
    EXPECT_EQ(ExitCode(results.status()), kExitUsage);
    return std::string(results.status().message());
  };
  EXPECT_NE(error({.prompt = {}}).find("request 1: the prompt has no tokens"), std::string::npos);
  EXPECT_NE(error({.prompt = {4, 113}}).find("token id 113"), std::string::npos);
  EXPECT_NE(error({.prompt = {4}, .max_new = 0}).find("max_new"), std::string::npos);
  EXPECT_NE(error({.prompt = Ids(100, 1), .max_new = 29}).find("128 positions"), std::string::npos);
  EXPECT_NE(error({.prompt = {4}, .max_new = 3, .sampling = {.top_p = 2}}).find("top_p"), std::string::npos);
}

}  // namespace
}  // namespace moebius
