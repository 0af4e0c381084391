#include "rl/sandbox/judge.h"

#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/strings.h"
#include "core/io/json.h"
#include "rl/sandbox/compare.h"
#include "rl/sandbox/compile.h"
#include "rl/sandbox/python_stub.h"
#include "rl/sandbox/slot_run.h"

namespace moebius::sandbox {
namespace {

constexpr size_t kMaxMessageBytes = 2000;

// 128 random bits as text, which a program cannot guess.
std::string EndMark() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return "";
  constexpr char kHex[] = "0123456789abcdef";
  std::string mark;
  for (const unsigned char byte : bytes) {
    mark.push_back(kHex[byte >> 4]);
    mark.push_back(kHex[byte & 15]);
  }
  return mark;
}

// The steps of an assert test: the script only after the program is loaded, the mark only after the script is
// done.
class AssertTalk {
 public:
  explicit AssertTalk(const std::string& script) : script_(script), mark_(EndMark()) {}

  std::string Answer(const std::string& frame) {
    if (step_ == Step::kLoaded && frame == "loaded") {
      step_ = Step::kDone;
      return script_;
    }
    if (frame == "assert") failed_ = true;
    if (step_ == Step::kDone && frame == "done") {
      step_ = Step::kMark;
      return mark_;
    }
    passed_ = step_ == Step::kMark && frame == mark_ && !mark_.empty() && !failed_;
    step_ = Step::kOver;
    return "";
  }
  // A compiled program has its script inside.
  void ScriptIsInside() { step_ = Step::kDone; }
  bool passed() const { return passed_; }
  bool assertion_failed() const { return failed_; }

 private:
  enum class Step { kLoaded, kDone, kMark, kOver };
  const std::string& script_;
  const std::string mark_;
  Step step_ = Step::kLoaded;
  bool passed_ = false, failed_ = false;
};

class Judge {
 public:
  Judge(Runner& runner, const Job& job) : runner_(runner), job_(job) {}

  Answer Run() {
    if (job_.language == Language::kCpp && job_.tests.kind != TestKind::kAssert && !Build(""))
      return Finish();
    for (const TestCase& test : job_.tests.tests) {
      if (job_.language == Language::kCpp && job_.tests.kind == TestKind::kAssert && !Build(test.input))
        continue;
      answer_.tests.push_back(RunTest(test));
    }
    return Finish();
  }

 private:
  // False when there is nothing to run: then the test, or all of them, have their verdict.
  bool Build(const std::string& script) {
    Compiled compiled = Compile(runner_, job_, script);
    const bool whole = job_.tests.kind != TestKind::kAssert;
    if (compiled.ok) {
      executable_ = std::move(compiled.executable);
      return true;
    }
    const Verdict verdict = compiled.harness ? Verdict::kHarness : Verdict::kCompile;
    answer_.tests.resize(whole ? job_.tests.tests.size() : answer_.tests.size() + 1, {.verdict = verdict});
    SetMessage(compiled.message);
    return false;
  }

  SlotProgram Program(const TestCase& test) const {
    SlotProgram program;
    program.limits = job_.tests.limits;
    if (job_.language == Language::kCpp) {
      program.argv = {"/prog/main"};
      program.executable = &executable_;
    } else {
      program.argv = PythonCommand(job_.tests.kind == TestKind::kFunction ? "function"
                                   : job_.tests.kind == TestKind::kAssert ? "assert"
                                                                          : "stdin");
      if (job_.tests.kind == TestKind::kFunction) program.argv.push_back(job_.tests.function);
      program.files.push_back({"main.py", job_.program});
    }
    if (job_.tests.kind == TestKind::kFunction) program.files.push_back({"args.json", test.input});
    if (job_.tests.kind == TestKind::kStdin || job_.tests.kind == TestKind::kChecker)
      program.input = test.input;
    return program;
  }

  TestAnswer RunTest(const TestCase& test) {
    SlotProgram program = Program(test);
    std::optional<std::string> value;
    AssertTalk talk(test.input);
    if (job_.tests.kind == TestKind::kFunction) {
      program.answer = [&](const std::string& frame) {
        if (!value) value = frame;
        return std::string();
      };
    } else if (job_.tests.kind == TestKind::kAssert) {
      if (job_.language == Language::kCpp) talk.ScriptIsInside();
      program.answer = [&](const std::string& frame) { return talk.Answer(frame); };
    }
    SlotResult result = RunInSlot(runner_, program);
    RunFacts& facts = result.facts;
    switch (job_.tests.kind) {
      case TestKind::kStdin:
        facts.right = SameText(test.output, result.output);
        break;
      case TestKind::kFunction:
        facts.right = value && SameAsExpected(*value, test.expected);
        break;
      case TestKind::kAssert:
        facts.right = talk.passed();
        // A failed assertion is a wrong answer, however it ends the process.
        facts.clean_exit |= talk.assertion_failed() || IsAbort(result.wait_status);
        break;
      case TestKind::kChecker:
        break;
    }
    if (job_.tests.kind == TestKind::kChecker && WorthChecking(facts)) AskChecker(test, &result);
    if (facts.harness) SetMessage(result.harness_error);
    if (LooksLikeNoMemory(result.error)) facts.asked_memory = true;
    return {.verdict = Decide(facts),
            .cpu_ms = result.cpu_us / 1000,
            .wall_ms = result.wall_us / 1000,
            .memory_kb = result.memory_kb};
  }

  static bool SameAsExpected(const std::string& text, const Value& expected) {
    const absl::StatusOr<Value> value = ParseValue(text, "the result");
    return value.ok() && SameValue(expected, *value);
  }

  bool IsAbort(int status) const {
    return job_.language == Language::kCpp && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  }

  // The last words of a program whose allocation was refused. They only tell MEM from RUNTIME.
  static bool LooksLikeNoMemory(std::string_view error) {
    const std::string_view tail = error.substr(error.size() - std::min<size_t>(error.size(), 200));
    return tail.find("MemoryError") != std::string_view::npos ||
           tail.find("std::bad_alloc") != std::string_view::npos;
  }

  // Neither a limit nor an unclean end can be mended by a checker; a refused call can.
  static bool WorthChecking(const RunFacts& facts) {
    RunFacts right = facts;
    right.right = true;
    const Verdict best = Decide(right);
    return best == Verdict::kOk || (best == Verdict::kRuntime && facts.denied);
  }

  struct Opinion {
    bool accepts = false;
    std::string fault;  // of the checker, "" where it has said yes or no
  };

  Opinion AskAbout(const TestCase& test, const std::string& actual) {
    SlotProgram checker;
    checker.limits = kCheckerLimits;
    checker.argv = PythonCommand("checker");
    for (const char* word : {"/prog/input", "/prog/expected", "/prog/actual"}) checker.argv.push_back(word);
    checker.files = {{"main.py", job_.tests.checker},
                     {"input", test.input},
                     {"expected", test.output},
                     {"actual", actual}};
    const SlotResult checked = RunInSlot(runner_, checker);
    RunFacts facts = checked.facts;
    facts.right = true;
    const Verdict verdict = Decide(facts);
    const bool within_limits = verdict == Verdict::kOk || verdict == Verdict::kRuntime;
    if (!within_limits || !WIFEXITED(checked.wait_status))
      return {.fault = Concat("the checker ended with ", VerdictName(verdict), ": ", checked.harness_error,
                              checked.error)};
    const int code = WEXITSTATUS(checked.wait_status);
    if (code > 1) return {.fault = Concat("the checker ended with exit code ", code, ": ", checked.error)};
    return {.accepts = code == 0, .fault = {}};
  }

  // A checker that fails on this output and accepts the expected one is sound: the output has made it fail,
  // and is no answer.
  void AskChecker(const TestCase& test, SlotResult* result) {
    const Opinion opinion = AskAbout(test, result->output);
    result->facts.right = opinion.accepts;
    if (opinion.fault.empty() || AskAbout(test, test.output).accepts) return;
    result->facts.harness = true;
    result->harness_error = opinion.fault;
  }

  static std::vector<std::string> PythonCommand(const std::string& kind) {
    return {"/usr/bin/python3", "-s", "-S", "-B", "-c", PythonStub(kind), kind};
  }

  void SetMessage(std::string_view text) {
    if (answer_.message.empty()) answer_.message = text.substr(0, kMaxMessageBytes);
  }

  Answer Finish() {
    answer_.verdict = Verdict::kOk;
    for (const TestAnswer& test : answer_.tests) {
      if (test.verdict == Verdict::kOk) ++answer_.passed;
      if (answer_.verdict == Verdict::kOk) answer_.verdict = test.verdict;
    }
    return std::move(answer_);
  }

  Runner& runner_;
  const Job& job_;
  FileDescriptor executable_;
  Answer answer_;
};

}  // namespace

Answer JudgeJob(Runner& runner, const Job& job) { return Judge(runner, job).Run(); }

std::string PrintAnswer(const Answer& answer) {
  nlohmann::ordered_json json;
  json["verdict"] = VerdictName(answer.verdict);
  json["passed"] = answer.passed;
  json["tests"] = nlohmann::ordered_json::array();
  for (const TestAnswer& test : answer.tests) {
    nlohmann::ordered_json one;
    one["verdict"] = VerdictName(test.verdict);
    one["cpu_ms"] = test.cpu_ms;
    one["wall_ms"] = test.wall_ms;
    one["memory_kb"] = test.memory_kb;
    json["tests"].push_back(std::move(one));
  }
  if (!answer.message.empty()) json["message"] = answer.message;
  return DumpJson(json);
}

}  // namespace moebius::sandbox
