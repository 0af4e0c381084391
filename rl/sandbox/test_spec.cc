#include "rl/sandbox/test_spec.h"

#include <algorithm>
#include <cstdlib>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius::sandbox {
namespace {

absl::Status Bad(const std::string& source, std::string_view field, std::string_view why) {
  return DamagedError(
      Concat(source, ": field \"", field, "\" ", why, "; the form is in docs/sandbox.md; correct the tests"));
}

absl::Status CheckFields(const Value& object, const std::vector<std::string>& known,
                         const std::string& source, std::string_view what) {
  if (object.kind != Value::Kind::kObject)
    return DamagedError(Concat(source, ": ", what, " is not a JSON object; write {...}"));
  for (const std::string& key : object.keys) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      return Bad(source, Printable(key), Concat("is unknown in ", what, " (known: ", Join(known), ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Text(const Value& object, std::string_view field, const std::string& source) {
  const Value* value = Member(object, field);
  if (value == nullptr) return Bad(source, field, "is missing");
  if (value->kind != Value::Kind::kString) return Bad(source, field, "is not a string");
  return value->text;
}

absl::Status ReadLimit(const Value& limits, std::string_view field, double min, double max, bool whole,
                       const std::string& source, double* out) {
  const Value* value = Member(limits, field);
  if (value == nullptr) return absl::OkStatus();
  if (value->kind != Value::Kind::kInteger && (whole || value->kind != Value::Kind::kReal))
    return Bad(source, field, whole ? "is not an integer" : "is not a number");
  const double number = std::strtod(value->text.c_str(), nullptr);
  if (!(number >= min && number <= max))
    return Bad(
        source, field,
        Concat("is ", Printable(value->text), ", outside ",
               min < 1 ? Concat(min) : WithCommas(std::llround(min)), " to ", WithCommas(std::llround(max))));
  *out = number;
  return absl::OkStatus();
}

absl::Status ReadLimits(const Value& json, const std::string& source, Limits* limits) {
  RETURN_IF_ERROR(CheckFields(json, {"cpu_s", "wall_s", "memory_mb", "processes", "disk_mb", "output_kb"},
                              source, "limits"));
  double memory = limits->memory_mb, processes = limits->processes, disk = limits->disk_mb,
         output = limits->output_kb;
  RETURN_IF_ERROR(ReadLimit(json, "cpu_s", 0.01, 86400, false, source, &limits->cpu_s));
  RETURN_IF_ERROR(ReadLimit(json, "wall_s", 0.01, 86400, false, source, &limits->wall_s));
  RETURN_IF_ERROR(ReadLimit(json, "memory_mb", 8, 1 << 20, true, source, &memory));
  RETURN_IF_ERROR(ReadLimit(json, "processes", 1, 30000, true, source, &processes));
  RETURN_IF_ERROR(ReadLimit(json, "disk_mb", 1, 1 << 16, true, source, &disk));
  RETURN_IF_ERROR(ReadLimit(json, "output_kb", 1, 1 << 20, true, source, &output));
  limits->memory_mb = static_cast<int>(memory);
  limits->processes = static_cast<int>(processes);
  limits->disk_mb = static_cast<int>(disk);
  limits->output_kb = static_cast<int>(output);
  return absl::OkStatus();
}

absl::StatusOr<TestKind> ReadKind(const Value& json, const std::string& source) {
  ASSIGN_OR_RETURN(const std::string name, Text(json, "kind", source));
  if (name == "stdin") return TestKind::kStdin;
  if (name == "function") return TestKind::kFunction;
  if (name == "assert") return TestKind::kAssert;
  if (name == "checker") return TestKind::kChecker;
  return Bad(source, "kind", Concat("is \"", Printable(name), "\", not stdin, function, assert or checker"));
}

absl::StatusOr<TestCase> ReadTest(const Value& json, TestKind kind, const std::string& source) {
  RETURN_IF_ERROR(CheckFields(json, {"input", "output", "visible"}, source, "a test"));
  TestCase test;
  if (const Value* visible = Member(json, "visible"); visible != nullptr) {
    if (visible->kind != Value::Kind::kBool) return Bad(source, "visible", "is not true or false");
    test.visible = visible->truth;
  }
  if (kind == TestKind::kFunction) {
    const Value* input = Member(json, "input");
    const Value* output = Member(json, "output");
    if (input == nullptr || input->kind != Value::Kind::kArray)
      return Bad(source, "input", "is not the list of arguments");
    if (output == nullptr) return Bad(source, "output", "is missing");
    test.input = PrintValue(*input);
    test.expected = *output;
    return test;
  }
  ASSIGN_OR_RETURN(test.input, Text(json, "input", source));
  if (kind == TestKind::kAssert) return test;
  ASSIGN_OR_RETURN(test.output, Text(json, "output", source));
  return test;
}

// A name, or names with points between: nothing that could be code.
bool IsName(std::string_view text) {
  bool start = true;
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (c == '.' ? start : !(letter || (!start && c >= '0' && c <= '9'))) return false;
    start = c == '.';
  }
  return !start;
}

}  // namespace

absl::StatusOr<TestSpec> ReadTestSpec(const Value& json, const std::string& source) {
  RETURN_IF_ERROR(CheckFields(json, {"kind", "tests", "function", "checker", "limits"}, source, "the tests"));
  TestSpec spec;
  ASSIGN_OR_RETURN(spec.kind, ReadKind(json, source));
  if (spec.kind == TestKind::kFunction) {
    ASSIGN_OR_RETURN(spec.function, Text(json, "function", source));
    if (!IsName(spec.function)) return Bad(source, "function", "is not a name");
    if (spec.function.size() > 1000) return Bad(source, "function", "has over 1,000 characters");
  }
  if (spec.kind == TestKind::kChecker) {
    ASSIGN_OR_RETURN(spec.checker, Text(json, "checker", source));
  }
  if (const Value* limits = Member(json, "limits"); limits != nullptr)
    RETURN_IF_ERROR(ReadLimits(*limits, source, &spec.limits));
  const Value* tests = Member(json, "tests");
  if (tests == nullptr || tests->kind != Value::Kind::kArray) return Bad(source, "tests", "is not a list");
  if (tests->items.empty()) return Bad(source, "tests", "is empty, and no test is no pass");
  for (size_t i = 0; i < tests->items.size(); ++i) {
    ASSIGN_OR_RETURN(TestCase test, ReadTest(tests->items[i], spec.kind, Concat(source, ": test ", i + 1)));
    spec.tests.push_back(std::move(test));
  }
  return spec;
}

absl::StatusOr<TestSpec> ParseTestSpec(std::string_view text, const std::string& source) {
  ASSIGN_OR_RETURN(const Value json, ParseValue(text, source));
  return ReadTestSpec(json, source);
}

absl::StatusOr<Job> ParseJob(std::string_view line, const std::string& source) {
  ASSIGN_OR_RETURN(const Value json, ParseValue(line, source));
  RETURN_IF_ERROR(CheckFields(json, {"lang", "program", "tests"}, source, "a line"));
  Job job;
  ASSIGN_OR_RETURN(const std::string name, Text(json, "lang", source));
  ASSIGN_OR_RETURN(job.language, ParseLanguage(name, source));
  ASSIGN_OR_RETURN(job.program, Text(json, "program", source));
  const Value* tests = Member(json, "tests");
  if (tests == nullptr) return Bad(source, "tests", "is missing");
  ASSIGN_OR_RETURN(job.tests, ReadTestSpec(*tests, source));
  return job;
}

absl::StatusOr<Language> ParseLanguage(std::string_view name, const std::string& source) {
  if (name == "python") return Language::kPython;
  if (name == "cpp") return Language::kCpp;
  return Bad(source, "lang", Concat("is \"", Printable(name), "\", not python or cpp"));
}

}  // namespace moebius::sandbox
