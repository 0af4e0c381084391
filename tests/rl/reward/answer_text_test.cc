// Numbers and programs in the texts of answers, as training and evaluation both read them.
#include "rl/reward/answer_text.h"

#include "gtest/gtest.h"

namespace moebius {
namespace {

TEST(LastNumberTest, ReadsSignsPointsAndThousands) {
  for (const auto& [text, number] : {std::pair{"3 and then $1,234.50.", "1234.50"},
                                     {"it fell to -3 degrees", "-3"},
                                     {"a debt of -$40", "-40"},
                                     {"a debt of $-3.", "-3"},
                                     {"from 3-5", "5"},
                                     {"The answer is \u22125.", "-5"},
                                     {"from 3\u22125", "5"},
                                     {"3-$5", "5"},
                                     {"x-5", "5"},
                                     {"so x=-3.5, done", "-3.5"},
                                     {"The probability is .5", ".5"},
                                     {"x = -.5", "-.5"},
                                     {"**.25**", ".25"},
                                     {"$.50 each", ".50"},
                                     {"That is all.5 are left", "5"},
                                     {"well...5", "5"},
                                     {"12 * 5 = 60.", "60"},
                                     {"1,234,567", "1234567"},
                                     {"1,2,3,4", "4"},
                                     {"the point (1,2)", "2"},
                                     {"x = 3,4", "4"},
                                     {"either 1,2345", "2345"},
                                     {"2,1,234.5", "1234.5"},
                                     {"1234,567", "567"},
                                     {"about 1.5e3", "1.5e3"},
                                     {"-2E-4 m", "-2E-4"},
                                     {"some 1e5.", "1e5"},
                                     {"the 3e", "3"},
                                     {"one e5", "5"},
                                     {"see 1.2.3", "2.3"},
                                     {"3.", "3"}}) {
    EXPECT_EQ(LastNumber(text), std::optional<std::string>(number)) << text;
  }
  EXPECT_EQ(LastNumber("twelve"), std::nullopt);
  const std::pair<const char*, const char*> firsts[] = {{"4 dollars (2 each)", "4"},
                                                        {" $1,234.50 or 7", "1234.50"},
                                                        {"-3.", "-3"},
                                                        {"is .5, not 6", ".5"},
                                                        {"1.5e-3 x 2", "1.5e-3"},
                                                        {"2e, 3", "2"},
                                                        {"7, 8", "7"},
                                                        {"12", "12"}};
  for (const auto& [text, number] : firsts) EXPECT_EQ(FirstNumber(text), number) << text;
  EXPECT_EQ(FirstNumber("none"), std::nullopt);
  EXPECT_EQ(LastNumber(""), std::nullopt);
}

TEST(ProgramInTest, IsTheLastFencedBlockOrAllOfTheText) {
  EXPECT_EQ(ProgramIn("print(1)\n"), "print(1)\n");
  EXPECT_EQ(ProgramIn("a\n```python\nx = 1\ny\n```\nb"), "x = 1\ny\n");
  EXPECT_EQ(ProgramIn("```\n1\n```\n  ```cpp\n2\n  ```"), "2\n");
  EXPECT_EQ(ProgramIn("first\n```python\na = 1\n```\nthen\n```\nb = 2\n```\nend"), "b = 2\n");
  EXPECT_EQ(ProgramIn("```python\r\na = 1\r\n```\r\n"), "a = 1\r\n");
  EXPECT_EQ(ProgramIn("````python\na = 1\n````"), "a = 1\n");
  EXPECT_EQ(ProgramIn(""), "");
}

TEST(ProgramInTest, AnswersThatWereCutOffEndWithTheText) {
  EXPECT_EQ(ProgramIn("```\n1\n```\n```py\nunfinished"), "unfinished\n");
  EXPECT_EQ(ProgramIn("```python\ncut = off"), "cut = off\n");
  EXPECT_EQ(ProgramIn("```\ncut = off"), "cut = off\n");
  EXPECT_EQ(ProgramIn("```python\nold\nno, better:\n```python\nnew\n```"), "new\n") << "one was not closed";
}

TEST(ProgramInTest, StrayFencesTakeNoProgramAway) {
  for (const char* behind : {"```", "```\n", "```\n\n", "That is it.\n```", "```\nThis prints x.\n",
                             "```\n```\n", "Use `x` and ```y``` so.\n", "```python\n```\n", "```python\n"}) {
    EXPECT_EQ(ProgramIn(std::string("```python\nx\n```\n") + behind), "x\n") << behind;
  }
  for (const char* blank : {"```", "```\n\n```", "```python\n"}) EXPECT_EQ(ProgramIn(blank), "") << blank;
}

TEST(WithoutCalculatorMarksTest, LeavesOutWhatTheyCompute) {
  EXPECT_EQ(WithoutCalculatorMarks("16 - 3 = <<16-3=13>>13 eggs, <<1=1>>$13 << 14"),
            "16 - 3 = 13 eggs, $13 << 14");
}

}  // namespace
}  // namespace moebius
