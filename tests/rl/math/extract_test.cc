#include "rl/math/extract.h"

#include <gtest/gtest.h>

namespace moebius::math {
namespace {

TEST(ExtractAnswer, TakesTheLastBoxWithItsBracesBalanced) {
  EXPECT_EQ(ExtractAnswer("a \\boxed{1} b \\boxed{\\frac{1}{2}} c").answer, "\\frac{1}{2}");
  EXPECT_EQ(ExtractAnswer("\\boxed{\\{1,2\\}}").answer, "\\{1,2\\}");
  EXPECT_EQ(ExtractAnswer("\\boxed 7").answer, "7");
  EXPECT_EQ(ExtractAnswer("\\boxed{\\boxed{3}}").answer, "\\boxed{3}");
}

TEST(ExtractAnswer, BoxesSideBySideAreOneListOfCandidates) {
  EXPECT_EQ(ExtractAnswer("\\boxed{5} or \\boxed{6}").answer, "5, 6");
  EXPECT_EQ(ExtractAnswer("\\boxed{5}\n\\boxed{5}").answer, "5") << "said twice";
  EXPECT_EQ(ExtractAnswer("$\\boxed{x=1}$, $\\boxed{y=2}$").answer, "x=1, y=2");
  EXPECT_EQ(ExtractAnswer("\\boxed{5}, so the sum is \\boxed{6}").answer, "6");
}

TEST(ExtractAnswer, ThinkingIsNoAnswer) {
  EXPECT_EQ(ExtractAnswer("<think>\\boxed{4}</think>It is \\boxed{5}").answer, "5");
  EXPECT_FALSE(ExtractAnswer("<think>\\boxed{4}</think>I give up").found);
}

TEST(ExtractAnswer, AnswerTagsComeBeforeBoxes) {
  EXPECT_EQ(ExtractAnswer("\\boxed{1} <answer>2</answer>").answer, "2");
  EXPECT_EQ(ExtractAnswer("<answer>1</answer> <answer>The box: \\boxed{3}</answer>").answer, "3");
}

TEST(ExtractAnswer, PhrasesEndAtTheSentence) {
  EXPECT_EQ(ExtractAnswer("The final answer is 3.5. Done").answer, "3.5");
  EXPECT_EQ(ExtractAnswer("**Final Answer:** x = 2\nbye").answer, "x = 2");
}

TEST(ExtractAnswer, RefusesWhatMarksNothing) {
  EXPECT_FALSE(ExtractAnswer("I think 5").found);
  EXPECT_FALSE(ExtractAnswer("").found);
  EXPECT_FALSE(ExtractAnswer("\\boxed{5").found);
  EXPECT_FALSE(ExtractAnswer("no box here").where.empty());
}

}  // namespace
}  // namespace moebius::math
