// The letter chosen, in the forms in which models write it and in those with which they hedge.
#include "rl/reward/choice.h"

#include "gtest/gtest.h"

namespace moebius {
namespace {

TEST(ChoiceTest, OneLetterIsFoundInEveryUsualForm) {
  for (const char* text : {"B",
                           "(B)",
                           " B. ",
                           "**B**",
                           "**B.**",
                           "[B]",
                           "B) Paris",
                           "(B) Paris, a city",
                           "\"B\"",
                           "$B$",
                           "The answer is (B).",
                           "the answer is B",
                           "Answer: B",
                           "**Answer:** B",
                           "**Answer**: B",
                           "ANSWER: (B)",
                           "The correct answer is: **B**",
                           "The answer is option B.",
                           "My choice is B because A is too short.",
                           "So the answer is\n\nB",
                           "The correct option is B, since it is shortest.",
                           "The answer is $\\text{B}$.",
                           "\\boxed{B}",
                           "so \\(\\boxed{\\text{(B)}}\\)",
                           "\\boxed{\\textbf{(B) } 12}",
                           "\\boxed{B. Paris}",
                           "<answer>B</answer>",
                           "<answer>\n(B) Paris\n</answer>",
                           "The answer is A. <answer>B</answer>",
                           "<think>The answer is C? No: D.</think> The answer is B.",
                           "The answer is B. I repeat: the answer is B.",
                           "The answer is A bird, so the answer is B"}) {
    const Choice choice = ExtractChoice(4, text);
    EXPECT_EQ(choice.outcome, ChoiceOutcome::kFound) << text;
    EXPECT_EQ(choice.letter, 'B') << text;
  }
  EXPECT_EQ(ExtractChoice(4, "The answer is A").letter, 'A');
  EXPECT_EQ(ExtractChoice(4, "The answer is A because it fits.").letter, 'A');
  EXPECT_EQ(ExtractChoice(10, "Answer: J").letter, 'J');
}

TEST(ChoiceTest, TwoDifferentLettersChooseNothing) {
  for (const char* text :
       {"A or B", "(A), (B)", "A/B", "The answer is A or B.", "The answer is (A) and (B)", "Answer: B, C",
        "The answer is B or maybe C.", "The answer is A. Wait, the answer is B.", "\\boxed{A} \\boxed{B}",
        "\\boxed{A, B}", "\\boxed{A} or \\boxed{B}", "<answer>A</answer><answer>B</answer>",
        "<answer>A or B</answer>", "<answer>(A) Rome (B) Paris</answer>", "A. B. C. D."}) {
    EXPECT_EQ(ExtractChoice(4, text).outcome, ChoiceOutcome::kSeveral) << text;
    for (const char gold : {'A', 'B', 'C', 'D'}) EXPECT_EQ(ChoiceReward(4, gold, text), 0) << text;
  }
}

TEST(ChoiceTest, NoLetterIsNoChoice) {
  for (const char* text :
       {"", "b", "E", "Because", "The answer is Bern", "The answer is B-12", "The answer is not B",
        "The answer is A bird", "A good question. B is what I like", "\\boxed{B + 1}", "\\boxed{12}",
        "<answer>", "The answer is B</think>", "\xff", "B is it"})
    EXPECT_EQ(ExtractChoice(4, text).outcome, ChoiceOutcome::kNone) << text;
}

TEST(ChoiceTest, TheRewardComparesAndRefusesAnImpossibleGold) {
  EXPECT_EQ(ChoiceReward(4, 'B', "The answer is (B)"), 1);
  EXPECT_EQ(ChoiceReward(4, 'C', "The answer is (B)"), 0);
  EXPECT_EQ(ChoiceReward(4, 'C', "I do not know"), 0);
  EXPECT_FALSE(ChoiceReward(4, 'E', "E").has_value());
  EXPECT_FALSE(ChoiceReward(4, 'b', "b").has_value());
  EXPECT_FALSE(ChoiceReward(1, 'A', "A").has_value());
}

}  // namespace
}  // namespace moebius
