#include "launch/cli.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "core/base/status.h"

namespace moebius {
namespace {

Verb Sample() {
  return {
      .name = "paint train",
      .summary = "paint a wall",
      .usage = "WALL [flags]",
      .flags = {SetFlag(),
                {.name = "count",
                 .kind = FlagKind::kInteger,
                 .placeholder = "N",
                 .fallback = "3",
                 .help = "walls",
                 .min = 1,
                 .max = 10},
                {.name = "rate",
                 .kind = FlagKind::kNumber,
                 .placeholder = "M/S",
                 .fallback = "0.5",
                 .help = "speed"},
                {.name = "fast", .kind = FlagKind::kSwitch, .help = "hurry"},
                {.name = "colour", .placeholder = "NAME", .help = "the paint", .choices = {"red", "blue"}},
                {.name = "picture", .placeholder = "FILE", .help = "of it", .endings = {".html", ".json"}}},
      .examples = {"moebius paint train wall", "moebius paint train wall --fast"},
      .min_positional = 1,
      .max_positional = 2,
      .run = [](const ParsedArgs&) { return absl::OkStatus(); }};
}

std::string ErrorOf(const std::vector<std::string>& args) {
  const auto parsed = ParseArgs(Sample(), args);
  EXPECT_FALSE(parsed.ok());
  EXPECT_EQ(ExitCode(parsed.status()), kExitUsage);
  return std::string(parsed.status().message());
}

TEST(Cli, ReadsFlagsInBothSpellingsAndKeepsPositionalWords) {
  const auto parsed =
      ParseArgs(Sample(), {"--count", "7", "wall", "--rate=-1e-3", "--fast", "--set", "a=1", "--set", "b=2"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Integer("count"), 7);
  EXPECT_DOUBLE_EQ(parsed->Number("rate"), -1e-3);
  EXPECT_TRUE(parsed->On("fast"));
  EXPECT_EQ(parsed->All("set"), (std::vector<std::string>{"a=1", "b=2"}));
  EXPECT_EQ(parsed->positional(), std::vector<std::string>{"wall"});
  EXPECT_FALSE(parsed->Given("colour"));
}

TEST(Cli, UsesFallbacksAndLetsTheLastValueWin) {
  const auto parsed = ParseArgs(Sample(), {"wall", "--rate", "1", "--rate", "2"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->Integer("count"), 3);
  EXPECT_FALSE(parsed->Given("count"));
  EXPECT_DOUBLE_EQ(parsed->Number("rate"), 2);
}

TEST(Cli, TakesEverythingAfterTwoDashesAndNegativeNumbersAsWords) {
  const auto parsed = ParseArgs(Sample(), {"-3", "--", "--fast"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->positional(), (std::vector<std::string>{"-3", "--fast"}));
  EXPECT_FALSE(parsed->On("fast"));
}

TEST(Cli, SuggestsTheNearestFlag) {
  EXPECT_NE(ErrorOf({"wall", "--coutn=3"}).find("did you mean --count?"), std::string::npos);
}

TEST(Cli, RefusesValuesOutOfRangeOfTheWrongKindOrNotAmongTheChoices) {
  EXPECT_NE(ErrorOf({"wall", "--count", "11"}).find("from 1 to 10"), std::string::npos);
  EXPECT_NE(ErrorOf({"wall", "--count", "2.5"}).find("whole number"), std::string::npos);
  EXPECT_NE(ErrorOf({"wall", "--count", "99999999999999999999"}).find("whole number"), std::string::npos);
  EXPECT_NE(ErrorOf({"wall", "--rate", "nan"}).find("a number"), std::string::npos);
  EXPECT_NE(ErrorOf({"wall", "--colour", "bleu"}).find("did you mean blue?"), std::string::npos);
  EXPECT_NE(ErrorOf({"wall", "--picture", "wall.pdf"}).find("ends in .html, .json"), std::string::npos);
  EXPECT_TRUE(ParseArgs(Sample(), {"wall", "--picture", "wall.json"}).ok());
  EXPECT_NE(ErrorOf({"wall", "--fast=1"}).find("switch"), std::string::npos);
  EXPECT_NE(ErrorOf({"wall", "--count"}).find("needs a value"), std::string::npos);
  EXPECT_NE(ErrorOf({"wall", "--count", "--fast"}).find("'--fast' looks like a flag; write --count=N"),
            std::string::npos)
      << ErrorOf({"wall", "--count", "--fast"});
}

TEST(Cli, RefusesMissingAndSurplusWords) {
  EXPECT_NE(ErrorOf({}).find("usage: moebius paint train WALL"), std::string::npos);
  EXPECT_NE(ErrorOf({"a", "b", "c"}).find("unexpected argument 'c'"), std::string::npos);
}

TEST(Cli, HelpNamesEveryFlagWithDefaultAndUnitAndBothExamples) {
  const std::string help = VerbHelp(Sample());
  for (const char* part :
       {"Usage: moebius paint train WALL", "--count N", "[default: 3]", "--rate M/S", "one of: red, blue",
        "--set FIELD=VALUE", "may be repeated", "moebius paint train wall --fast"}) {
    EXPECT_NE(help.find(part), std::string::npos) << part;
  }
}

class Program : public testing::Test {
 protected:
  int Run(const std::vector<std::string>& args) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunProgram({Sample(), Failing(), Losing()}, args);
    std::fflush(stdout);
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return code;
  }
  static Verb Failing() {
    return {.name = "fail",
            .summary = "fail",
            .usage = "",
            .flags = {},
            .examples = {"a", "b"},
            .run = [](const ParsedArgs&) {
              return MissingError("no wall; gone; build one\nno paint; sold out; wait");
            }};
  }
  static Verb Losing() {
    return {.name = "lose",
            .summary = "lose",
            .usage = "",
            .flags = {},
            .examples = {"a", "b"},
            .run = [](const ParsedArgs&) { return ErrnoError(ENOENT, "open wall"); }};
  }
  std::string out_, err_;
};

TEST_F(Program, PrintsHelpOnStdoutWithExitZero) {
  EXPECT_EQ(Run({"--help"}), 0);
  EXPECT_NE(out_.find("paint train"), std::string::npos);
  EXPECT_EQ(Run({"paint", "train", "--help"}), 0);
  EXPECT_NE(out_.find("Usage: moebius paint train"), std::string::npos);
  EXPECT_EQ(Run({"help", "fail"}), 0);
  EXPECT_NE(out_.find("Usage: moebius fail"), std::string::npos);
  EXPECT_EQ(Run({"paint", "--help"}), 0);
  EXPECT_EQ(err_, "");
}

TEST_F(Program, SuggestsTheNearestVerbWithExit64) {
  EXPECT_EQ(Run({"fial"}), 64);
  EXPECT_NE(err_.find("error: unknown verb 'fial'; did you mean fail?"), std::string::npos) << err_;
  EXPECT_EQ(Run({"paint", "trian"}), 64);
  EXPECT_NE(err_.find("did you mean paint train?"), std::string::npos) << err_;
  EXPECT_EQ(Run({"paint"}), 64);
  EXPECT_EQ(Run({}), 64);
  EXPECT_EQ(out_, "");
}

TEST_F(Program, PrintsEachErrorOnItsOwnLineAndReturnsItsExitCode) {
  EXPECT_EQ(Run({"fail"}), 66);
  EXPECT_EQ(err_, "error: no wall; gone; build one\nerror: no paint; sold out; wait\n");
}

TEST_F(Program, SaysWhatToDoWhereTheOperatingSystemDoesNot) {
  EXPECT_EQ(Run({"lose"}), 66);
  EXPECT_EQ(err_,
            "error: open wall: No such file or directory; check the path, which is relative to the current "
            "folder\n");
}

}  // namespace
}  // namespace moebius
