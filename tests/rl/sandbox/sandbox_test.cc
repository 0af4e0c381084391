// The parts of the sandbox that decide, without a slot: JSON values, comparing, verdicts, tests files, paths.
#include <gtest/gtest.h>

#include <string>

#include "core/base/status.h"
#include "rl/sandbox/compare.h"
#include "rl/sandbox/json_value.h"
#include "rl/sandbox/judge.h"
#include "rl/sandbox/notify.h"
#include "rl/sandbox/test_spec.h"
#include "rl/sandbox/verdict.h"

namespace moebius::sandbox {
namespace {

bool Same(const std::string& expected, const std::string& actual) {
  const absl::StatusOr<Value> a = ParseValue(expected, "expected"), b = ParseValue(actual, "actual");
  EXPECT_TRUE(a.ok() && b.ok()) << expected << " and " << actual;
  return a.ok() && b.ok() && SameValue(*a, *b);
}

TEST(JsonValue, IntegersOfAnySizeCompareExactly) {
  const std::string digits(200, '7');
  EXPECT_TRUE(Same(digits + "1", digits + "1"));
  EXPECT_FALSE(Same(digits + "1", digits + "2"));
  EXPECT_FALSE(Same("9007199254740993", "9007199254740992"));
  EXPECT_FALSE(Same("9007199254740993", "9007199254740992.0"));
  EXPECT_TRUE(Same("-0", "0"));
  EXPECT_TRUE(Same("3", "3.0"));
}

TEST(JsonValue, RealNumbersCompareWithinATolerance) {
  EXPECT_TRUE(Same("0.3", "0.30000000000000004"));
  EXPECT_TRUE(Same("1e300", "1.0000000001e300"));
  EXPECT_FALSE(Same("0.3", "0.3001"));
  EXPECT_TRUE(Same("2.0", "2"));
}

TEST(JsonValue, KindsAreNotMixed) {
  EXPECT_FALSE(Same("1", "true"));
  EXPECT_FALSE(Same("\"1\"", "1"));
  EXPECT_FALSE(Same("null", "false"));
  EXPECT_FALSE(Same("[]", "{}"));
  EXPECT_FALSE(Same("[1, 2]", "[1]"));
  EXPECT_FALSE(Same("[1]", "[1, 2]"));
}

TEST(JsonValue, ObjectsCompareWhateverTheirOrder) {
  EXPECT_TRUE(Same(R"({"a": 1, "b": [true]})", R"({"b": [true], "a": 1})"));
  EXPECT_FALSE(Same(R"({"a": 1})", R"({"b": 1})"));
}

TEST(JsonValue, PrintsWhatItRead) {
  for (const std::string text :
       {R"({"k": [1, -2.50e+3, true, null, "a\u0000\"\\\u00e9\ud83d\ude00"]})", "[]", "{}"}) {
    const absl::StatusOr<Value> value = ParseValue(text, "text");
    ASSERT_TRUE(value.ok()) << value.status();
    EXPECT_EQ(PrintValue(*value), text);
  }
}

TEST(JsonValue, RefusesWhatIsNotJson) {
  for (const std::string text : {"",
                                 "[",
                                 "[1,]",
                                 "{\"a\":1,}",
                                 "01",
                                 "1.",
                                 "1e",
                                 "-",
                                 "NaN",
                                 "Infinity",
                                 "1e999",
                                 "\"a",
                                 "\"\x01\"",
                                 "\"\xff\"",
                                 "\"\xed\xa0\x80\"",
                                 "\"\\ud800\"",
                                 "\"\\udc00\"",
                                 "\"\\x\"",
                                 "{\"a\":1,\"a\":2}",
                                 "1 2",
                                 "'a'",
                                 "tru"}) {
    EXPECT_FALSE(ParseValue(text, "text").ok()) << text;
  }
  EXPECT_FALSE(ParseValue(std::string(100000, '['), "text").ok());
  EXPECT_TRUE(ParseValue(std::string(100, '[') + std::string(100, ']'), "text").ok());
}

TEST(Compare, WhiteSpaceAroundLinesDoesNotCount) {
  EXPECT_TRUE(SameText("1\n2\n", "1\r\n2"));
  EXPECT_TRUE(SameText("a b", "  a b \n\n"));
  EXPECT_TRUE(SameText("", "\n"));
  EXPECT_FALSE(SameText("a b", "a  b"));
  EXPECT_FALSE(SameText("1\n2\n3", "1"));
  EXPECT_FALSE(SameText("1", "1\n2"));
  EXPECT_FALSE(SameText("1\n2", "1\n\n2"));
  EXPECT_FALSE(SameText("x", ""));
}

TEST(Verdict, LimitsDecideFirstAndARefusedCallOnlyWhereTheResultIsWrong) {
  const auto with = [](auto set) {
    RunFacts facts = {.right = true, .clean_exit = true};
    set(facts);
    return Decide(facts);
  };
  EXPECT_EQ(with([](RunFacts&) {}), Verdict::kOk);
  EXPECT_EQ(with([](RunFacts& f) { f.cpu = true; }), Verdict::kCpu);
  EXPECT_EQ(with([](RunFacts& f) { f.procs = f.wall = true; }), Verdict::kProcs);
  EXPECT_EQ(with([](RunFacts& f) { f.harness = f.mem = true; }), Verdict::kHarness);
  EXPECT_EQ(with([](RunFacts& f) { f.clean_exit = false; }), Verdict::kRuntime);
  EXPECT_EQ(with([](RunFacts& f) { f.denied = true; }), Verdict::kOk);
  EXPECT_EQ(with([](RunFacts& f) { f.denied = true, f.clean_exit = false; }), Verdict::kRuntime);
  EXPECT_EQ(with([](RunFacts& f) { f.denied = true, f.right = false; }), Verdict::kDenied);
  EXPECT_EQ(with([](RunFacts& f) { f.denied = true, f.right = f.clean_exit = false; }), Verdict::kDenied);
  EXPECT_EQ(with([](RunFacts& f) { f.right = false; }), Verdict::kWrong);
  EXPECT_EQ(with([](RunFacts& f) { f.right = f.clean_exit = false; }), Verdict::kRuntime);
  EXPECT_EQ(with([](RunFacts& f) { f.asked_memory = true, f.right = f.clean_exit = false; }), Verdict::kMem);
  EXPECT_EQ(with([](RunFacts& f) { f.asked_memory = true; }), Verdict::kOk);
}

TEST(TestSpec, ReadsTheFormOfTheContract) {
  const absl::StatusOr<TestSpec> spec = ParseTestSpec(
      R"({"kind": "function", "function": "Solution.f", "tests": [{"input": [12345678901234567890123, "a"], "output": null}],
          "limits": {"cpu_s": 0.5, "memory_mb": 64}})",
      "tests");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->tests[0].input, R"([12345678901234567890123, "a"])");
  EXPECT_EQ(spec->limits.cpu_s, 0.5);
  EXPECT_EQ(spec->limits.memory_mb, 64);
  EXPECT_EQ(spec->limits.wall_s, 5);
  EXPECT_TRUE(ParseTestSpec(R"({"kind": "assert", "tests": [{"input": "assert f"}]})", "tests").ok());
}

TEST(TestSpec, NoTestsAreAnErrorAndNoPass) {
  for (const std::string text :
       {R"({"kind": "stdin", "tests": []})", R"({"kind": "stdin"})",
        R"({"tests": [{"input": "", "output": ""}]})", "[]",
        R"({"kind": "stdin", "tests": [{"input": "", "output": ""}], "limit": {}})",
        R"({"kind": "stdin", "tests": [{"input": "", "output": "", "outpt": ""}]})",
        R"({"kind": "stdin", "tests": [{"input": "", "output": "", "visible": 1}]})",
        R"({"kind": "stdin", "tests": [{"input": "", "output": ""}], "limits": {"cpu_s": 0}})",
        R"({"kind": "stdin", "tests": [{"input": "", "output": ""}], "limits": {"processes": 1.5}})",
        R"({"kind": "function", "function": "f(); g", "tests": [{"input": [], "output": 1}]})",
        R"({"kind": "function", "function": "f", "tests": [{"input": 1, "output": 1}]})",
        R"({"kind": "function", "function": "f", "tests": [{"input": [1]}]})",
        R"({"kind": "checker", "tests": [{"input": "", "output": ""}]})"}) {
    const absl::StatusOr<TestSpec> spec = ParseTestSpec(text, "tests");
    EXPECT_EQ(ExitCode(spec.status()), kExitDamaged) << text;
  }
}

TEST(Notify, SeesAttemptsAtSomethingOutside) {
  EXPECT_EQ(NormalPath("/box/../../etc//./shadow"), "/etc/shadow");
  EXPECT_EQ(NormalPath("/.."), "/");
  EXPECT_TRUE(IsOutside({.path = "/etc/shadow", .parent_exists = true}));
  EXPECT_TRUE(IsOutside({.path = "/home/x/secret"}));
  EXPECT_TRUE(IsOutside({.path = "/tmp/tester/secret"}));
  EXPECT_TRUE(IsOutside({.path = "/tmp/tester/secret", .write = true}));
  EXPECT_TRUE(IsOutside({.path = "/usr/bin/python3", .write = true, .exists = true, .parent_exists = true}));
  EXPECT_TRUE(IsOutside({.path = "/proc/1/environ", .exists = true, .parent_exists = true}));
  EXPECT_FALSE(IsOutside({.path = "/usr/lib/python3/x.py"}));
  EXPECT_FALSE(IsOutside({.path = "/box/missing", .parent_exists = true}));
  EXPECT_FALSE(IsOutside({.path = "/tmp/new", .write = true, .parent_exists = true}));
  EXPECT_FALSE(IsOutside({.path = "/dev/stdin", .exists = true, .parent_exists = true}));
  EXPECT_FALSE(IsOutside({.path = "/boxes", .exists = true, .parent_exists = true}));
  EXPECT_TRUE(IsOutside({.path = "/boxes", .write = true, .parent_exists = true}));
}

TEST(Judge, PrintsTheAnswerOfTheContract) {
  const Answer answer = {.verdict = Verdict::kWrong,
                         .passed = 1,
                         .tests = {{Verdict::kOk, 8, 11, 9000}, {Verdict::kWrong, 1, 2, 3}},
                         .message = ""};
  EXPECT_EQ(
      PrintAnswer(answer),
      R"({"verdict":"WRONG","passed":1,"tests":[{"verdict":"OK","cpu_ms":8,"wall_ms":11,"memory_kb":9000},)"
      R"({"verdict":"WRONG","cpu_ms":1,"wall_ms":2,"memory_kb":3}]})");
}

}  // namespace
}  // namespace moebius::sandbox
