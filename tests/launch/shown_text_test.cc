#include "launch/train/shown_text.h"

#include "gtest/gtest.h"

namespace moebius {
namespace {

SampleRow Judged(double correct) {
  return {.step = 3,
          .prompt = "6 2 -> 8: ",
          .text = "6-2=4:8?\n6+2",
          .values = {{"correct", correct}},
          .gold = "6+2"};
}

TEST(ShownTextTest, OneLineSaysWhetherItIsRight) {
  EXPECT_EQ(SampleInOneLine(Judged(1)), "right  6 2 -> 8: 6-2=4:8? / 6+2");
  EXPECT_EQ(SampleInOneLine(Judged(0)), "wrong  6 2 -> 8: 6-2=4:8? / 6+2");
  // -1: nobody could judge it.
  EXPECT_EQ(SampleInOneLine(Judged(-1)), "sample: 6 2 -> 8: 6-2=4:8? / 6+2");
  EXPECT_EQ(SampleInOneLine({.prompt = "What is 2 * 3?", .text = "6", .values = {{"correct", 1}}}),
            "right  What is 2 * 3? 6");
  EXPECT_EQ(SampleInOneLine({.prompt = "It w", .text = "as\x1b[2J"}), "sample: It was\\x1B[2J");
}

TEST(ShownTextTest, LongTextsKeepTheirEndsAndWholeCharacters) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "\u00e9";  // two bytes each
  for (const char* start : {"", "a"}) {
    const std::string line = SampleInOneLine({.prompt = start, .text = text + "the end"});
    EXPECT_TRUE(line.ends_with("the end")) << line;
    EXPECT_NE(line.find(" ... "), std::string::npos);
    EXPECT_EQ(line.find("\\x"), std::string::npos) << line;
    EXPECT_LT(line.size(), 270u);
  }
}

TEST(ShownTextTest, ARightAndAWrongOneArePrinted) {
  const std::vector<SampleRow> chosen = ChosenToPrint({Judged(1), Judged(1), Judged(0), Judged(1)});
  ASSERT_EQ(chosen.size(), 2u);
  EXPECT_EQ(chosen[0].values[0].second, 1);
  EXPECT_EQ(chosen[1].values[0].second, 0);
  EXPECT_EQ(ChosenToPrint({{.prompt = "", .text = "a"}, {.prompt = "", .text = "b"}}).size(), 2u);
}

TEST(ShownTextTest, MarkdownLeavesTextsAsTheyAre) {
  EXPECT_EQ(SamplesInMarkdown({Judged(0), {.prompt = "It w", .text = "as"}}),
            "wrong (6+2 is right):\n\n    6 2 -> 8: 6-2=4:8?\n    6+2\n\nsample:\n\n    It was");
}

}  // namespace
}  // namespace moebius
