#include "rl/sandbox/languages.h"

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/sandbox/judge.h"

namespace moebius::sandbox {
namespace {

struct Honest {
  Language language;
  const char *program, *tests;
};

constexpr Honest kHonest[] = {
    {Language::kPython, "import collections\nprint(input()[::-1])",
     R"({"kind": "stdin", "tests": [{"input": "ab", "output": "ba"}]})"},
    {Language::kPython, "def f(x):\n    return [x, {'a': 0.5}]",
     R"({"kind": "function", "function": "f", "tests": [{"input": [1], "output": [1, {"a": 0.5}]}]})"},
    {Language::kPython, "def f(x):\n    return x + 1",
     R"({"kind": "assert", "tests": [{"input": "assert f(1) == 2"}]})"},
    {Language::kCpp, "#include <vector>\nstd::vector<int> f(int x) { return {x, x + 1}; }",
     R"({"kind": "function", "function": "f", "tests": [{"input": [1], "output": [1, 2]}]})"},
};

}  // namespace

absl::Status TryLanguage(Runner& runner, Language language) {
  for (const Honest& honest : kHonest) {
    if (honest.language != language) continue;
    absl::StatusOr<TestSpec> tests = ParseTestSpec(honest.tests, "a program of ours");
    CHECK(tests.ok()) << std::string(tests.status().message());
    // Of a machine under load nothing is said here.
    tests->limits.cpu_s = tests->limits.wall_s = 60;
    const Answer answer = JudgeJob(runner, {language, honest.program, *std::move(tests)});
    RETURN_IF_ERROR(runner.status());
    if (answer.verdict == Verdict::kOk) continue;
    const bool python = language == Language::kPython;
    return UnavailableError(
        Concat("a right ", python ? "Python" : "C++", " program is judged ", VerdictName(answer.verdict),
               " here", answer.message.empty() ? "" : Concat(" (", Printable(answer.message, 200), ")"),
               "; every answer would be; ",
               python ? "install a python3 of 3.10 or later as /usr/bin/python3, with its library in /usr"
                      : "install a g++ that knows C++20 as /usr/bin/g++, with its libraries in /usr"));
  }
  return absl::OkStatus();
}

}  // namespace moebius::sandbox
