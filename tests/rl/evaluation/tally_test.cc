#include "rl/evaluation/tally.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

class ExactVotes final : public Grader {
 public:
  absl::StatusOr<std::vector<Graded>> Grade(const std::vector<Attempt>&) const override {
    return std::vector<Graded>();
  }
  bool votes() const override { return true; }
  bool Same(std::string_view a, std::string_view b) const override { return a == b; }
};

constexpr Outcome kR = Outcome::kRight, kW = Outcome::kWrong, kN = Outcome::kNoAnswer,
                  kU = Outcome::kUndecided;

Graded Of(Outcome outcome, const std::string& answer) { return {.outcome = outcome, .extracted = answer}; }

std::vector<Question> Questions(size_t n) {
  std::vector<Question> out;
  for (size_t i = 0; i < n; ++i) out.push_back({.id = std::to_string(i)});
  return out;
}

const auto kSame = [](std::string_view a, std::string_view b) { return a == b; };

TEST(MajorityAnswer, TakesTheLargestClassAndTheOneReachedFirstOnATie) {
  EXPECT_EQ(MajorityAnswer({Of(kW, "5"), Of(kR, "7"), Of(kR, "7")}, kSame), 1u);
  EXPECT_EQ(MajorityAnswer({Of(kW, "5"), Of(kR, "7"), Of(kR, "7"), Of(kW, "5")}, kSame), 0u);
  EXPECT_EQ(MajorityAnswer({Of(kR, "7"), Of(kW, "5"), Of(kW, "5"), Of(kR, "7")}, kSame), 0u);
}

TEST(MajorityAnswer, CountsEqualAnswersAsOneClassAndLeavesOutThoseWithoutAnAnswer) {
  const auto by_length = [](std::string_view a, std::string_view b) { return a.size() == b.size(); };
  EXPECT_EQ(MajorityAnswer({Of(kW, "9"), Of(kR, "0.5"), Of(kR, "1/2")}, by_length), 1u);
  EXPECT_EQ(MajorityAnswer({Of(kN, ""), Of(kN, ""), Of(kR, "7")}, kSame), 2u);
  EXPECT_EQ(MajorityAnswer({Of(kN, ""), Of(kN, "")}, kSame), std::nullopt);
}

// Two problems of four samples: 2 of 4 right with the wrong answers apart, and 1 of 4 with the wrong alike.
TEST(TallyVerdicts, GivesPassAndConsOfHandMadeVerdicts) {
  const Tally tally = TallyVerdicts(Questions(2),
                                    {{Of(kR, "7"), Of(kW, "1"), Of(kR, "7"), Of(kW, "2")},
                                     {Of(kW, "3"), Of(kR, "4"), Of(kW, "3"), Of(kW, "3")}},
                                    std::make_unique<ExactVotes>().get());
  EXPECT_EQ(tally.problems, 2);
  EXPECT_EQ(tally.samples, 8);
  EXPECT_EQ(tally.right, 3);
  EXPECT_EQ(tally.wrong, 5);
  EXPECT_DOUBLE_EQ(tally.pass_at_1.estimate.mean, (0.5 + 0.25) / 2);
  // Sample standard deviation of {0.5, 0.25} over the root of 2, times 1.96.
  EXPECT_NEAR(tally.pass_at_1.estimate.half_width, 1.96 * 0.125, 1e-12);
  ASSERT_EQ(tally.pass_at.size(), 2u);
  EXPECT_EQ(tally.pass_at[0].first, 2);
  // 1 - C(2,2)/C(4,2) and 1 - C(3,2)/C(4,2).
  EXPECT_DOUBLE_EQ(tally.pass_at[0].second.estimate.mean, (5.0 / 6 + 0.5) / 2);
  EXPECT_EQ(tally.pass_at[1].first, 4);
  EXPECT_DOUBLE_EQ(tally.pass_at[1].second.estimate.mean, 1);
  ASSERT_TRUE(tally.cons.has_value());
  EXPECT_DOUBLE_EQ(tally.cons->estimate.mean, 0.5);
}

TEST(TallyVerdicts, LeavesUndecidedSamplesOutAndCountsThem) {
  const Tally tally = TallyVerdicts(
      Questions(3), {{Of(kU, "a"), Of(kR, "b")}, {Of(kU, "a"), Of(kU, "a")}, {Of(kN, ""), Of(kW, "c")}},
      std::make_unique<ExactVotes>().get());
  EXPECT_EQ(tally.undecided, 3);
  EXPECT_EQ(tally.no_answer, 1);
  EXPECT_EQ(tally.pass_at_1.problems, 2);
  EXPECT_DOUBLE_EQ(tally.pass_at_1.estimate.mean, 0.5);
  EXPECT_EQ(tally.pass_at[0].second.problems, 1) << "only the last problem has two decided samples";
  EXPECT_EQ(tally.cons->problems, 1) << "the majority of the first two is undecided";
  EXPECT_DOUBLE_EQ(tally.cons->estimate.mean, 0);
}

// A question that was too long to ask has no partial score; what nobody could judge does not count.
TEST(TallyVerdicts, WhatWasNotAskedScoresNothing) {
  const auto dense = [](Outcome outcome, std::optional<double> score) {
    return Graded{.outcome = outcome, .dense = score};
  };
  const Tally tally =
      TallyVerdicts(Questions(4), {{dense(kR, 1)}, {dense(kW, 0.5)}, {dense(kW, {})}, {dense(kU, {})}},
                    std::make_unique<ExactVotes>().get());
  ASSERT_TRUE(tally.dense.has_value());
  EXPECT_EQ(tally.dense->problems, 3);
  EXPECT_DOUBLE_EQ(tally.dense->estimate.mean, 0.5);
  EXPECT_FALSE(TallyVerdicts(Questions(1), {{Of(kW, "")}}, nullptr).dense.has_value());
}

TEST(TallyVerdicts, HasNoConsensusForOneSampleAndSplitsSubjects) {
  std::vector<Question> questions = Questions(3);
  questions[0].subject = questions[2].subject = "b";
  questions[1].subject = "a";
  const Tally tally = TallyVerdicts(questions, {{Of(kR, "")}, {Of(kW, "")}, {Of(kW, "")}},
                                    std::make_unique<ExactVotes>().get());
  EXPECT_FALSE(tally.cons.has_value());
  EXPECT_TRUE(tally.pass_at.empty());
  ASSERT_EQ(tally.subjects.size(), 2u);
  EXPECT_EQ(tally.subjects[0].first, "b");
  EXPECT_DOUBLE_EQ(tally.subjects[0].second.estimate.mean, 0.5);
  EXPECT_EQ(tally.subjects[1].second.problems, 1);
}

TEST(PercentText, SaysTheRuleOfThreeWhereTheNormalApproximationIsBlind) {
  EXPECT_EQ(PercentText({{0.25, 0.05}, 100}), "25.0 +- 5.0");
  const auto alike = [](double score, size_t n) {
    const std::vector<double> scores(n, score);
    return PercentText({MeanOverPrompts(scores), static_cast<int64_t>(n)});
  };
  EXPECT_EQ(alike(0, 50), "0.0 (below 6.0)");
  EXPECT_EQ(alike(1, 100), "100.0 (above 97.0)");
  EXPECT_EQ(alike(1, 2), "100.0 (above 0.0)");
  EXPECT_EQ(alike(0.5, 10), "50.0 +- 30.0");
  EXPECT_EQ(PercentText({{0, 0}, 0}), "-");
}

}  // namespace
}  // namespace moebius
