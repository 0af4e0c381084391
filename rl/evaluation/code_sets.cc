// HumanEval and MBPP: Python programs judged by asserts in the sandbox.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/json.h"
#include "rl/evaluation/final_answer.h"
#include "rl/evaluation/makers.h"
#include "rl/evaluation/sources.h"
#include "rl/reward/answer_text.h"

namespace moebius {
namespace {

using nlohmann::json;

constexpr sandbox::Limits kLimits = {.cpu_s = 5, .wall_s = 10, .memory_mb = 512};

struct CodeTest {
  std::string prefix;        // stands before the answer
  std::string entry_point;   // function that a chat answer defines anew; "" where the answer is always whole
  std::string before_entry;  // what such an answer needs: imports and helpers of the prompt
  std::string script;        // asserts
};

class CodeGrader final : public Grader {
 public:
  CodeGrader(std::vector<CodeTest> tests, Asking asking, sandbox::Sandbox& sandbox)
      : tests_(std::move(tests)), asking_(asking), sandbox_(sandbox) {}

  absl::StatusOr<std::vector<Graded>> Grade(const std::vector<Attempt>& attempts) const override {
    std::vector<sandbox::Job> jobs;
    std::vector<Graded> out(attempts.size());
    std::vector<size_t> of_job;
    for (size_t i = 0; i < attempts.size(); ++i) {
      const std::string_view answer = attempts[i].answer;
      if (Trimmed(asking_ == Asking::kText ? answer : WithoutThoughts(answer)).empty()) {
        out[i] = {.outcome = Outcome::kNoAnswer, .verdict = "no answer"};
        continue;
      }
      const CodeTest& test = tests_[attempts[i].question];
      out[i].extracted = Program(test, attempts[i].answer);
      jobs.push_back({.language = sandbox::Language::kPython,
                      .program = out[i].extracted,
                      .tests = {.kind = sandbox::TestKind::kAssert,
                                .tests = {{.input = test.script, .output = {}, .expected = {}}},
                                .function = {},
                                .checker = {},
                                .limits = kLimits}});
      of_job.push_back(i);
    }
    ASSIGN_OR_RETURN(const std::vector<sandbox::Answer> answers, sandbox_.JudgeAll(jobs));
    for (size_t j = 0; j < answers.size(); ++j) {
      const sandbox::Verdict verdict = answers[j].verdict;
      out[of_job[j]].verdict = std::string(sandbox::VerdictName(verdict));
      out[of_job[j]].outcome = verdict == sandbox::Verdict::kOk        ? Outcome::kRight
                               : verdict == sandbox::Verdict::kHarness ? Outcome::kUndecided
                                                                       : Outcome::kWrong;
    }
    return out;
  }
  bool votes() const override { return false; }
  bool Same(std::string_view a, std::string_view b) const override { return a == b; }

 private:
  std::string Program(const CodeTest& test, std::string_view answer) const {
    if (asking_ == Asking::kText) return Concat(test.prefix, answer, "\n");
    const std::string block = ProgramIn(WithoutThoughts(answer));
    if (test.entry_point.empty()) return block;
    if (block.find("def " + test.entry_point) != block.npos) return Concat(test.before_entry, "\n", block);
    return Concat(test.prefix, "\n", block);
  }

  std::vector<CodeTest> tests_;
  Asking asking_;
  sandbox::Sandbox& sandbox_;
};

std::string WithoutCarriageReturns(std::string text) {
  std::erase(text, '\r');
  return text;
}

struct MbppRow {
  Question question;
  Example example;
  CodeTest test;
  int64_t number;
};

absl::StatusOr<MbppRow> ReadMbppRow(const json& object, const std::string& where, bool chat) {
  ASSIGN_OR_RETURN(const std::string text, GetString(object, "text", where));
  ASSIGN_OR_RETURN(const std::string code, GetString(object, "code", where));
  ASSIGN_OR_RETURN(const int64_t number, GetInt(object, "task_id", where));
  ASSIGN_OR_RETURN(const std::vector<std::string> asserts, GetStringArray(object, "test_list", where));
  ASSIGN_OR_RETURN(const std::string setup, GetStringOr(object, "test_setup_code", "", where));
  if (asserts.empty()) {
    return DamagedError(where +
                        ": test_list is empty; a program without tests cannot be judged; get the file again");
  }
  const std::string tests = WithoutCarriageReturns(Join(asserts, "\n"));
  const std::string task = Concat(Trimmed(text), "\nThe program must pass these tests:\n\n", tests, "\n\n");
  MbppRow row{.question = {.id = Concat("mbpp/", number)}, .example = {}, .test = {}, .number = number};
  row.question.ask = chat ? task + "Give the whole program in one block between ``` lines."
                          : Concat("Task: ", task, "[BEGIN]");
  const std::string program(Trimmed(WithoutCarriageReturns(code)));
  row.example = {row.question.ask,
                 chat ? Concat(" ```python\n", program, "\n```") : Concat("\n", program, "\n[DONE]")};
  row.test.script = Concat(WithoutCarriageReturns(setup), "\n", tests, "\n");
  return row;
}

}  // namespace

absl::StatusOr<Benchmark> MakeHumanEval(const BenchmarkOptions& options) {
  if (options.shots.value_or(0) > 0)
    return UsageError("humaneval has no worked examples; its prompts are whole; give --shots 0");
  const bool chat = options.asking == Asking::kChat;
  SourceReader reader(options.data, "humaneval");
  ASSIGN_OR_RETURN(const std::string path, reader.Find({"humaneval/HumanEval.jsonl"}));
  Benchmark out{.protocol = ProtocolText(0, options.asking)};
  std::vector<CodeTest> tests;
  RETURN_IF_ERROR(
      reader.ReadJsonRows(path, [&](const json& object, const std::string& where) -> absl::Status {
        ASSIGN_OR_RETURN(const std::string id, GetString(object, "task_id", where));
        ASSIGN_OR_RETURN(const std::string prompt, GetString(object, "prompt", where));
        ASSIGN_OR_RETURN(const std::string entry, GetString(object, "entry_point", where));
        ASSIGN_OR_RETURN(const std::string test, GetString(object, "test", where));
        const size_t at = prompt.find("def " + entry);
        if (at == prompt.npos) {
          return DamagedError(Concat(where, ": prompt does not define entry_point \"", Printable(entry),
                                     "\"; the tests call it; get the file again"));
        }
        // Without its last line end, so that the answer's own begins a token.
        const std::string head(prompt, 0, prompt.find_last_not_of(" \t\r\n") + 1);
        out.questions.push_back({.id = id,
                                 .ask = chat ? Concat("Complete this function. Give all of it in one block "
                                                      "between ``` lines.\n\n```python\n",
                                                      head, "\n```")
                                             : head});
        tests.push_back({.prefix = head,
                         .entry_point = entry,
                         .before_entry = prompt.substr(0, at),
                         .script = Concat(test, "\ncheck(", entry, ")\n")});
        return absl::OkStatus();
      }));
  const int64_t count = std::min(std::ssize(out.questions), options.limit.value_or(INT64_MAX));
  out.questions.resize(count);
  tests.resize(count);
  out.examples.emplace_back();
  out.files = reader.TakeFiles();
  out.grader = std::make_unique<CodeGrader>(std::move(tests), options.asking, *options.sandbox);
  if (!chat) out.stops = {"\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```"};
  out.max_new = 512;
  return out;
}

absl::StatusOr<Benchmark> MakeMbpp(const BenchmarkOptions& options) {
  // The published split: problems 11 to 510 are the test, 2, 3 and 4 the examples.
  constexpr int64_t kFirst = 11, kLast = 510, kFirstExample = 2, kLastExample = 4;
  const bool chat = options.asking == Asking::kChat;
  const int64_t shots = options.shots.value_or(chat ? 0 : kLastExample - kFirstExample + 1);
  if (shots > kLastExample - kFirstExample + 1)
    return UsageError(
        Concat("mbpp with ", shots, " shots; its examples are problems 2, 3 and 4; give --shots 3 or less"));
  SourceReader reader(options.data, "mbpp");
  ASSIGN_OR_RETURN(const std::string path, reader.Find({"mbpp/mbpp.jsonl"}));
  Benchmark out;
  std::vector<CodeTest> tests;
  ExampleSet& set = out.examples.emplace_back();
  RETURN_IF_ERROR(
      reader.ReadJsonRows(path, [&](const json& object, const std::string& where) -> absl::Status {
        ASSIGN_OR_RETURN(MbppRow row, ReadMbppRow(object, where, chat));
        if (row.number >= kFirstExample && row.number <= kLastExample && std::ssize(set.examples) < shots)
          set.examples.push_back(std::move(row.example));
        const bool wanted = std::ssize(out.questions) < options.limit.value_or(INT64_MAX);
        if (row.number < kFirst || row.number > kLast || !wanted) return absl::OkStatus();
        out.questions.push_back(std::move(row.question));
        tests.push_back(std::move(row.test));
        return absl::OkStatus();
      }));
  if (out.questions.empty())
    return DamagedError(
        path + ": has no problem with a task_id from 11 to 510; these are the test; get the file again");
  ASSIGN_OR_RETURN(out.shots, ShotsOf(options, path, std::ssize(set.examples), shots));
  out.protocol = ProtocolText(out.shots, options.asking);
  out.files = reader.TakeFiles();
  out.grader = std::make_unique<CodeGrader>(std::move(tests), options.asking, *options.sandbox);
  if (!chat) out.stops = {"[DONE]"};
  out.max_new = 512;
  return out;
}

}  // namespace moebius
