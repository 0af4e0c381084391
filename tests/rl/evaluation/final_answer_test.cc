#include "rl/evaluation/final_answer.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

TEST(LastNumber, ReadsSignsPointsAndThousands) {
  EXPECT_EQ(LastNumber("3 and then $1,234.50."), "1234.50");
  EXPECT_EQ(LastNumber("it fell to -3 degrees"), "-3");
  EXPECT_EQ(LastNumber("a debt of -$40"), "-40");
  EXPECT_EQ(LastNumber("from 3-5"), "5") << "a hyphen between numbers is no sign";
  EXPECT_EQ(LastNumber("costs .5"), ".5");
  EXPECT_EQ(LastNumber("twelve"), std::nullopt);
  EXPECT_EQ(LastNumber(""), std::nullopt);
}

TEST(FindNumberAnswer, PrefersBoxThenMarkThenPhraseThenTheLastNumber) {
  EXPECT_EQ(FindNumberAnswer("#### 4 but \\boxed{5} and 6"), "5");
  EXPECT_EQ(FindNumberAnswer("The answer is 3.\n#### 4 pens\n5 left over"), "4");
  EXPECT_EQ(FindNumberAnswer("The answer is 12 apples. I checked it 2 times"), "12");
  EXPECT_EQ(FindNumberAnswer("so 3+4=7"), "7");
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

TEST(FindProgram, TakesTheLastBlock) {
  EXPECT_EQ(FindProgram("first\n```python\na = 1\n```\nthen\n```\nb = 2\n```\nend"), "b = 2\n");
  EXPECT_EQ(FindProgram("```python\ncut = off"), "cut = off");
  EXPECT_EQ(FindProgram("plain = 1"), "plain = 1");
}

}  // namespace
}  // namespace moebius
