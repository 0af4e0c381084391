#include "rl/evaluation/final_answer.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

TEST(FindNumberAnswer, PrefersBoxThenMarkThenPhraseThenTheLastNumber) {
  EXPECT_EQ(FindNumberAnswer("#### 4 but \\boxed{5} and 6"), "5");
  EXPECT_EQ(FindNumberAnswer("The answer is 3.\n#### 4 pens\n5 left over"), "4");
  EXPECT_EQ(FindNumberAnswer("The answer is 12 apples. I checked it 2 times"), "12");
  EXPECT_EQ(FindNumberAnswer("so 3+4=7"), "7");
  EXPECT_EQ(FindNumberAnswer("#### 4 dollars (2 each)"), "4");
  EXPECT_EQ(FindNumberAnswer("The answer is 12 apples, 3 each"), "12");
  EXPECT_EQ(FindNumberAnswer("The answer is 3*4 = 12 apples"), "12");
  EXPECT_EQ(FindNumberAnswer("I do not know"), std::nullopt);
}

TEST(FindNumberAnswer, LooksBehindTheThoughtsAndNotIntoUnfinishedOnes) {
  EXPECT_EQ(FindNumberAnswer("<think>maybe \\boxed{1}</think> It is 2"), "2");
  EXPECT_EQ(FindNumberAnswer("<think>maybe \\boxed{1}"), std::nullopt);
  EXPECT_EQ(FindMathAnswer("<think>\\boxed{1}"), std::nullopt);
  EXPECT_EQ(FindMathAnswer("<think>\\boxed{1}</think>\\boxed{2}"), "2");
}

TEST(FindShortAnswer, TakesTagsElseTheLineThatIsAskedFor) {
  EXPECT_EQ(FindShortAnswer("x\n<answer> 12 </answer>\ny", AnswerLine::kFirst), "12");
  EXPECT_EQ(FindShortAnswer("\n12345 \nand more", AnswerLine::kFirst), "12345");
  EXPECT_EQ(FindShortAnswer("Let me see.\n\nRRD\n", AnswerLine::kLast), "RRD");
  EXPECT_EQ(FindShortAnswer(" \n", AnswerLine::kLast), std::nullopt);
}

}  // namespace
}  // namespace moebius
