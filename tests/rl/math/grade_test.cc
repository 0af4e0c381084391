#include <flint/flint.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "rl/math/equivalence.h"
#include "tests/rl/math/math_tables.h"

namespace moebius::math {
namespace {

std::vector<Case> OwnCases() { return ReadCases(MOEBIUS_SOURCE_DIR "/tests/rl/math/cases.tsv"); }

TEST(Grade, OwnCasesAreRight) {
  const std::vector<Case> cases = OwnCases();
  ASSERT_GE(cases.size(), 250u);
  const Score score = Judge(cases);
  EXPECT_EQ(score.false_equal, 0) << score.wrong;
  EXPECT_EQ(score.right, score.total) << score.wrong;
}

TEST(Grade, EveryReadableTextEqualsItself) {
  for (const Case& c : OwnCases()) {
    // A space more keeps the texts from being the same bytes.
    EXPECT_EQ(Grade(c.gold, c.gold + " ").outcome, Outcome::kEqual) << c.gold;
  }
}

TEST(Grade, EqualityIsSymmetric) {
  for (const Case& c : OwnCases()) {
    // "(B) 12" as gold may be answered by its value, but 12 is not answered by a letter.
    if (c.kind == "choice") continue;
    // What is unreadable or undefined may be different one way and undecided the other.
    const Outcome forward = Grade(c.gold, c.answer).outcome, backward = Grade(c.answer, c.gold).outcome;
    EXPECT_EQ(forward == Outcome::kEqual, backward == Outcome::kEqual) << c.gold << " | " << c.answer;
  }
}

TEST(Grade, GivesTheSameVerdictInEveryThread) {
  const std::vector<Case> cases = OwnCases();
  std::vector<std::vector<std::string>> verdicts(4);
  std::vector<std::thread> threads;
  for (std::vector<std::string>& mine : verdicts) {
    threads.emplace_back([&] {
      for (const Case& c : cases) {
        const GradeResult result = Grade(c.gold, c.answer);
        mine.push_back(std::string(OutcomeName(result.outcome)) + result.reason);
      }
      flint_cleanup();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : verdicts) EXPECT_EQ(mine, verdicts[0]);
}

TEST(Grade, UndecidedSaysWhichBudgetEnded) {
  std::string tower = "1";
  for (int i = 0; i < 400; ++i) tower = "\\sqrt{1+" + tower + "}";
  EXPECT_EQ(Grade("2", tower).outcome, Outcome::kUndecided);
  EXPECT_NE(Grade("2", tower).reason.find("depth"), std::string::npos);
  std::string sum = "1";
  for (int i = 0; i < 6000; ++i) sum += "+x";
  EXPECT_NE(Grade("2", sum).reason.find("size"), std::string::npos);
  EXPECT_NE(Grade("2", std::string(100000, '1')).reason.find("size budget"), std::string::npos);
  const GradeResult steps = Grade("\\sum_{k=1}^{4000}\\sum_{j=1}^{4000}\\frac{1}{kj}", "2");
  EXPECT_EQ(steps.outcome, Outcome::kUndecided);
  EXPECT_NE(steps.reason.find("step"), std::string::npos) << steps.reason;
}

TEST(Grade, SmallerBudgetsOnlyMakeVerdictsUndecided) {
  GradeBudget small;
  small.max_steps = 40;
  small.max_precision = 64;
  for (const Case& c : OwnCases()) {
    const GradeResult result = Grade(c.gold, c.answer, small);
    if (c.expected == "equal") continue;
    EXPECT_NE(result.outcome, Outcome::kEqual) << c.gold << " | " << c.answer << ": " << result.reason;
  }
}

TEST(Grade, NeverTakesCloseNumbersForEqual) {
  // @ is a tiny number. Forms that share no term, so that nothing cancels before it is computed.
  const std::vector<std::pair<std::string, std::string>> pairs = {{"\\sqrt{2}", "\\sqrt{2}+@"},
                                                                  {"\\frac{1}{3}", "\\frac{1}{3}+@"},
                                                                  {"x", "x+@"},
                                                                  {"\\sqrt{8}", "2\\sqrt{2}+@"},
                                                                  {"\\sqrt{2}", "\\sqrt{2+@}"},
                                                                  {"\\ln 6", "\\ln 2+\\ln 3+@"},
                                                                  {"\\sin 1", "\\sin(1+@)"},
                                                                  {"\\pi", "4\\arctan 1+@"},
                                                                  {"\\sqrt{2}x", "x\\sqrt{2+@}"},
                                                                  {"e^{\\sqrt{2}}", "e^{\\sqrt{2}+@}"},
                                                                  {"\\cos x", "\\cos(x+@)"}};
  for (int digits = 5; digits <= 400; digits += 5) {
    for (const auto& [gold, form] : pairs) {
      std::string answer = form;
      answer.replace(answer.find('@'), 1, "10^{-" + std::to_string(digits) + "}");
      const GradeResult result = Grade(gold, answer);
      EXPECT_EQ(result.outcome, Outcome::kDifferent) << gold << " " << answer << ": " << result.reason;
    }
  }
}

}  // namespace
}  // namespace moebius::math
