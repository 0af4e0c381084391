// Text rewards against texts judged by hand.
#include <numeric>

#include "gtest/gtest.h"
#include "rl/reward/text_reward.h"

namespace moebius {
namespace {

TEST(FormatRewardTest, OnlyOneThoughtAndThenOneAnswerIsWhole) {
  for (const char* text :
       {"<think>a</think><answer>b</answer>", " <think>\n</think>\n\n<answer> 4 </answer>\n",
        "<think>1 < 2 > 0</think><answer><b></answer>"})
    EXPECT_EQ(FormatReward({}, text), 1) << text;
  for (const char* text :
       {"", "b", "<answer>b</answer>", "<think>a</think>", "<answer>b</answer><think>a</think>",
        "<think>a<answer>b</answer></think>", "<think>a</think>so<answer>b</answer>",
        "Sure! <think>a</think><answer>b</answer>", "<think>a</think><answer>b</answer> Done.",
        "<think>a</think><answer> </answer>", "<think>a</think><think>a</think><answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>", "<think><think>a</think><answer>b</answer>",
        "<THINK>a</THINK><answer>b</answer>", "</think>a<think><answer>b</answer>",
        "<think>a</think></answer>b<answer>"})
    EXPECT_EQ(FormatReward({}, text), 0) << text;
}

TEST(FormatRewardTest, PartialCreditCountsTagsAndStaysBelowOne) {
  const FormatOptions options{.partial_credit = true};
  EXPECT_EQ(FormatReward(options, "<think>a</think><answer>b</answer>"), 1);
  EXPECT_DOUBLE_EQ(*FormatReward(options, "<think>a</think>"), 0.4);
  EXPECT_DOUBLE_EQ(*FormatReward(options, "<think><think>a</think><answer>b"), 0.4);
  EXPECT_DOUBLE_EQ(*FormatReward(options, "<answer>b</answer><think>a</think>"), 0.8);
  EXPECT_EQ(FormatReward(options, "nothing"), 0);
}

TEST(FormatRewardTest, TagsAndAnOpenedThoughtAreTheCallersChoice) {
  EXPECT_EQ(FormatReward({.think_tag = "plan", .answer_tag = "out"}, "<plan>a</plan><out>b</out>"), 1);
  const FormatOptions opened{.think_opened = true, .partial_credit = true};
  EXPECT_EQ(FormatReward(opened, "so</think><answer>b</answer>"), 1);
  EXPECT_EQ(FormatReward(opened, "</think><answer>b</answer>"), 1);
  EXPECT_DOUBLE_EQ(*FormatReward(opened, "<think>so</think><answer>b</answer>"), 0.2 * 3);
  EXPECT_FALSE(FormatReward({.think_tag = ""}, "a").has_value());
  EXPECT_FALSE(FormatReward({.think_tag = "answer"}, "a").has_value());
}

TEST(LanguageTest, TheShareIsOfLettersAlone) {
  EXPECT_EQ(LanguageConsistency(Script::kLatin, "Größe: 12 + 3, naïve!"), 1);
  EXPECT_DOUBLE_EQ(*LanguageConsistency(Script::kLatin, "abc где"), 0.5);
  EXPECT_DOUBLE_EQ(*LanguageConsistency(Script::kCyrillic, "abc где"), 0.5);
  EXPECT_EQ(LanguageConsistency(Script::kHan, "答案是 42。"), 1);
  EXPECT_DOUBLE_EQ(*LanguageConsistency(Script::kHan, "東京タワー"), 0.4);
  EXPECT_EQ(LanguageConsistency(Script::kJapanese, "東京タワーです"), 1);
  EXPECT_EQ(LanguageConsistency(Script::kGreek, "λόγος"), 1);
  EXPECT_EQ(LanguageConsistency(Script::kHangul, "한국어"), 1);
  EXPECT_EQ(LanguageConsistency(Script::kArabic, "مرحبا"), 1);
  EXPECT_EQ(LanguageConsistency(Script::kHebrew, "שלום"), 1);
  EXPECT_EQ(LanguageConsistency(Script::kDevanagari, "नमक"), 1);
  EXPECT_EQ(LanguageConsistency(Script::kThai, "ไทย"), 1);
  EXPECT_EQ(LanguageConsistency(Script::kThai, "latin"), 0);
  EXPECT_FALSE(LanguageConsistency(Script::kLatin, "12 + 3 = 15").has_value());
  EXPECT_FALSE(LanguageConsistency(Script::kLatin, "").has_value());
  EXPECT_FALSE(LanguageConsistency(Script::kLatin, "abc\xff").has_value());
  EXPECT_EQ(ScriptByName("han"), Script::kHan);
  EXPECT_FALSE(ScriptByName("klingon").has_value());
}

TEST(RepetitionTest, TheShareOfRepeatedRunsOfWords) {
  EXPECT_EQ(RepeatedWords(2, "one two three four"), 0);
  EXPECT_DOUBLE_EQ(*RepeatedWords(1, "a b a\nb  a"), 0.6);
  EXPECT_DOUBLE_EQ(*RepeatedWords(2, "a b a b a"), 0.5);
  EXPECT_DOUBLE_EQ(*RepeatedWords(3, "go go go go go go"), 0.75);
  EXPECT_EQ(RepeatedWords(1, "A a a."), 0);
  EXPECT_FALSE(RepeatedWords(3, "two words").has_value());
  EXPECT_FALSE(RepeatedWords(1, " \n").has_value());
}

TEST(RepetitionTest, TokensCountLikeWords) {
  const std::vector<int32_t> loop = {7, 8, 9, 7, 8, 9, 7, 8, 9};
  EXPECT_DOUBLE_EQ(*RepeatedTokens(3, loop), 4.0 / 7);
  std::vector<int32_t> rising(100000);
  std::iota(rising.begin(), rising.end(), 0);
  EXPECT_EQ(RepeatedTokens(4, rising), 0);
}

TEST(LengthRewardTest, ShapesByTheSoftLimit) {
  const LengthShaping shaping{.maximum = 100, .margin = 20};
  EXPECT_EQ(LengthReward(shaping, 80), 0);
  EXPECT_DOUBLE_EQ(*LengthReward(shaping, 95), -0.75);
  EXPECT_EQ(LengthReward(shaping, 1000), -1);
  EXPECT_FALSE(LengthReward({}, 5).has_value());
  EXPECT_FALSE(LengthReward({.maximum = 10, .margin = 11}, 5).has_value());
  EXPECT_FALSE(LengthReward(shaping, -1).has_value());
}

TEST(WeightedRewardTest, AMissingPartMakesTheSumMissing) {
  const std::vector<RewardPart> parts = {{2, 0.5}, {-1, 0.25}, {0, std::nullopt}};
  EXPECT_DOUBLE_EQ(*WeightedReward(parts), 0.75);
  const std::vector<RewardPart> missing = {{1, 1.0}, {0.1, std::nullopt}};
  EXPECT_FALSE(WeightedReward(missing).has_value());
  EXPECT_FALSE(WeightedReward({}).has_value());
}

}  // namespace
}  // namespace moebius
