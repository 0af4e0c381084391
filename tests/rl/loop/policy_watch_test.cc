// Detectors over the course of a run.
#include "rl/loop/policy_watch.h"

#include <cmath>
#include <functional>

#include "gtest/gtest.h"

namespace moebius {
namespace {

// Steps of a run of which one metric is as `of` says; which steps had a warning, and its text.
std::vector<std::pair<int64_t, std::string>> Warnings(PolicyWatch& watch, const std::string& metric,
                                                      const std::function<double(int64_t)>& of, int64_t steps,
                                                      int64_t from = 1) {
  std::vector<std::pair<int64_t, std::string>> out;
  for (int64_t step = from; step < from + steps; ++step) {
    for (std::string& warning : watch.Observe(step, {{"train/loss", 1}, {metric, of(step)}}))
      out.emplace_back(step, std::move(warning));
  }
  return out;
}

std::vector<int64_t> WarnedAt(const std::string& metric, const std::function<double(int64_t)>& of,
                              int64_t steps) {
  PolicyWatch watch;
  std::vector<int64_t> out;
  for (const auto& [step, warning] : Warnings(watch, metric, of, steps)) out.push_back(step);
  return out;
}

using Steps = std::vector<int64_t>;

TEST(PolicyWatchTest, LengthThatDoublesOrHalves) {
  const std::string metric = "rl/response_tokens_mean";
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 30 ? 10 : 21; }, 60),
            Steps{40})
      << "the mean of ten steps";
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 30 ? 10 : 4.9; }, 60),
            Steps{40});
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 30 ? 10 : 19; }, 200),
            Steps{});
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 30 ? 10 : 6; }, 200),
            Steps{});
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t) { return 0; }, 100),
            Steps{});
  PolicyWatch watch;
  const auto said = Warnings(
      watch, metric, [](int64_t step) { return step <= 10 ? 10 : 20; }, 20);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_TRUE(
      said[0].second.starts_with("warning: answers have 20 tokens in the mean of 10 steps, in the "
                                 "first 10 they had 10;"))
      << said[0].second;
}

TEST(PolicyWatchTest, RepetitionThatDoubles) {
  const std::string metric = "rl/repetition";
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 20 ? 0.06 : 0.13; }, 60),
            Steps{29});
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 20 ? 0.01 : 0.09; }, 200),
            Steps{})
      << "little of little";
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 20 ? 0.5 : 0.1; }, 200),
            Steps{})
      << "less";
}

TEST(PolicyWatchTest, AnswersThatAreCutOff) {
  EXPECT_EQ(WarnedAt(
                "rl/unfinished", [](int64_t) { return 0.51; }, 50),
            Steps{10});
  EXPECT_EQ(WarnedAt(
                "rl/unfinished", [](int64_t) { return 0.5; }, 50),
            Steps{});
}

TEST(PolicyWatchTest, GapBetweenVisibleAndHiddenTests) {
  const std::string metric = "rl/visible_hidden_gap";
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 20 ? 0.2 : 0.31; }, 60),
            Steps{30});
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 20 ? 0.2 : 0.29; }, 200),
            Steps{});
}

TEST(PolicyWatchTest, AnswersWithoutAVerdictThatGrow) {
  const std::string metric = "rl/left_out_share";
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t step) { return step <= 20 ? 0.02 : 0.13; }, 60),
            Steps{30});
  EXPECT_EQ(WarnedAt(
                metric, [](int64_t) { return 0.5; }, 200),
            Steps{})
      << "so it was from the start";
}

TEST(PolicyWatchTest, RewardsThatNeverDiffer) {
  const auto warned = [](double mean, double deviation, int64_t odd_step) {
    PolicyWatch watch;
    Steps out;
    for (int64_t step = 1; step <= 40; ++step) {
      const double more = step == odd_step ? 0.5 : 0;
      if (!watch.Observe(step, {{"rl/reward_mean", mean + more}, {"rl/reward_std", deviation}}).empty())
        out.push_back(step);
    }
    return out;
  };
  EXPECT_EQ(warned(0, 0, 0), Steps{10});
  EXPECT_EQ(warned(1, 0, 15), Steps{10});
  EXPECT_EQ(warned(1, 0, 5), Steps{15}) << "ten steps in a row";
  EXPECT_EQ(warned(0.5, 0.5, 0), Steps{});
}

TEST(PolicyWatchTest, SaysTheSameOnceInFiftySteps) {
  EXPECT_EQ(WarnedAt(
                "rl/unfinished", [](int64_t) { return 1; }, 170),
            (Steps{10, 60, 110, 160}));
}

TEST(PolicyWatchTest, StepsWithoutNumbersDoNotCount) {
  EXPECT_EQ(WarnedAt(
                "rl/unfinished", [](int64_t step) { return step % 2 == 0 ? 1.0 : NAN; }, 25),
            Steps{20});
}

// A run that goes on: another watch that was fed the same rows says the same from there on.
TEST(PolicyWatchTest, StandsWhereItStoodAfterTheSameRows) {
  const auto of = [](int64_t step) { return step <= 15 ? 10.0 : 30.0; };
  PolicyWatch whole;
  const auto all = Warnings(whole, "rl/response_tokens_mean", of, 200);
  for (const int64_t cut : {12, 18, 25, 70}) {
    PolicyWatch resumed;
    auto said = Warnings(resumed, "rl/response_tokens_mean", of, cut);
    for (auto& more : Warnings(resumed, "rl/response_tokens_mean", of, 200 - cut, cut + 1))
      said.push_back(std::move(more));
    EXPECT_EQ(said, all) << cut;
  }
  EXPECT_EQ(all.size(), 4u);
}

}  // namespace
}  // namespace moebius
