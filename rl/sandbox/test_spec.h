// The tests of a program as JSON (docs/sandbox.md), read strictly: an unknown field, a value of the wrong
// kind or an empty list of tests is an error, never a pass.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rl/sandbox/json_value.h"
#include "rl/sandbox/limits.h"

namespace moebius::sandbox {

enum class Language { kPython, kCpp };
enum class TestKind { kStdin, kFunction, kAssert, kChecker };

struct TestCase {
  std::string input;   // stdin, checker: standard input; assert: the script; function: JSON list of arguments
  std::string output;  // stdin, checker: expected text; unused by the others
  Value expected;      // function: the expected value
  bool visible = false;  // the prompt shows it; judged like any other
};

struct TestSpec {
  TestKind kind = TestKind::kStdin;
  std::vector<TestCase> tests;
  std::string function;  // function: the name to call, "Class.method" for a method of a fresh object
  std::string checker;   // checker: text of a Python program
  Limits limits;
};

struct Job {
  Language language = Language::kPython;
  std::string program;
  TestSpec tests;
};

// DamagedError naming `source` and the field.
absl::StatusOr<TestSpec> ReadTestSpec(const Value& json, const std::string& source);
absl::StatusOr<TestSpec> ParseTestSpec(std::string_view text, const std::string& source);

// {"lang": "python" | "cpp", "program": TEXT, "tests": {...}}.
absl::StatusOr<Job> ParseJob(std::string_view line, const std::string& source);

absl::StatusOr<Language> ParseLanguage(std::string_view name, const std::string& source);

}  // namespace moebius::sandbox
