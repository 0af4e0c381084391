// Problems read from a file of JSON lines, held in memory.
#include <functional>
#include <set>

#include "core/base/check.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/line_reader.h"
#include "data/message_lines.h"
#include "rl/math/equivalence.h"
#include "rl/problems/jsonl_line.h"
#include "rl/problems/problem_kinds.h"
#include "rl/problems/problems.pb.h"
#include "rl/reward/answer_text.h"
#include "rl/reward/choice.h"
#include "rl/sandbox/sandbox.h"

namespace moebius {
namespace {

Judgement JudgeMath(const std::string& gold, std::string_view answer) {
  const math::Outcome outcome = math::Grade(gold, answer).outcome;
  Judgement judged{
      .correct = std::nullopt, .dense = std::nullopt, .verdict = std::string(math::OutcomeName(outcome))};
  if (outcome != math::Outcome::kUndecided) judged.correct = outcome == math::Outcome::kEqual ? 1 : 0;
  return judged;
}

Judgement JudgeChoice(int count, char gold, std::string_view answer) {
  const Choice choice = ExtractChoice(count, answer);
  return {.correct = ChoiceReward(count, gold, answer),
          .dense = std::nullopt,
          .verdict = choice.outcome == ChoiceOutcome::kFound  ? std::string(1, choice.letter)
                     : choice.outcome == ChoiceOutcome::kNone ? "none"
                                                              : "several"};
}

Judgement JudgeExact(const std::string& gold, std::string_view answer) {
  const bool equal = Trimmed(answer) == gold;
  return {.correct = equal ? 1 : 0, .dense = std::nullopt, .verdict = equal ? "equal" : "different"};
}

absl::StatusOr<Judgement> JudgeProgram(sandbox::Sandbox& sandbox, const JsonlProblem& problem,
                                       std::string_view answer) {
  ASSIGN_OR_RETURN(
      const std::vector<sandbox::Answer> answers,
      sandbox.JudgeAll(
          {{.language = problem.language, .program = ProgramIn(answer), .tests = problem.tests}}));
  const sandbox::Answer& judged = answers[0];
  Judgement judgement{.correct = std::nullopt,
                      .dense = std::nullopt,
                      .verdict = std::string(sandbox::VerdictName(judged.verdict)),
                      .depends_on_time = true};
  if (judged.verdict == sandbox::Verdict::kHarness) return judgement;
  judgement.correct = judged.verdict == sandbox::Verdict::kOk ? 1 : 0;
  const std::vector<sandbox::TestCase>& tests = problem.tests.tests;
  judgement.dense = static_cast<double>(judged.passed) / tests.size();
  CHECK_EQ(judged.tests.size(), tests.size());
  size_t visible = 0, passed = 0;
  for (size_t i = 0; i < tests.size(); ++i) {
    if (!tests[i].visible) continue;
    ++visible;
    passed += judged.tests[i].verdict == sandbox::Verdict::kOk;
  }
  if (visible > 0 && visible < tests.size()) judgement.visible = passed == visible ? 1 : 0;
  return judgement;
}

class Jsonl final : public ProblemSet {
 public:
  Jsonl(JsonlKind kind, std::vector<JsonlProblem> lines, const proto::Problems& wording,
        sandbox::Sandbox* sandbox)
      : kind_(kind),
        lines_(std::move(lines)),
        prompt_(wording.prompt()),
        system_(wording.system()),
        sandbox_(sandbox) {}

  int64_t size() const override { return static_cast<int64_t>(lines_.size()); }
  bool has_dense() const override { return kind_ == JsonlKind::kCode; }

  Problem At(uint64_t index) const override {
    index %= lines_.size();
    const JsonlProblem& line = lines_[index];
    Problem problem{.id = line.id,
                    .messages = line.messages,
                    .gold = line.gold,
                    .index = index,
                    .fingerprint = line.fingerprint};
    if (!prompt_.empty()) {
      std::string& asked = problem.messages.back().content;
      asked = FillIn(prompt_, {{"question", asked}});
    }
    if (!system_.empty() && problem.messages.front().role != "system")
      problem.messages.insert(problem.messages.begin(), {"system", system_});
    return problem;
  }

  WorkedAnswer Demonstration(const Problem& problem, uint64_t) const override {
    const JsonlProblem& line = lines_[problem.index % lines_.size()];
    if (kind_ == JsonlKind::kCode) return {.thoughts = "", .answer = line.solution};
    return {.thoughts = line.solution, .answer = line.gold};
  }

  absl::StatusOr<Judgement> Judge(const Problem& problem, std::string_view answer) const override {
    const JsonlProblem& line = lines_[problem.index % lines_.size()];
    switch (kind_) {
      case JsonlKind::kMath:
        return JudgeMath(line.gold, answer);
      case JsonlKind::kChoice:
        return JudgeChoice(line.num_choices, line.gold[0], answer);
      case JsonlKind::kExact:
        return JudgeExact(line.gold, answer);
      case JsonlKind::kCode:
        return JudgeProgram(*sandbox_, line, answer);
    }
    return absl::InternalError("a kind of problem without a judge");
  }

 private:
  JsonlKind kind_;
  std::vector<JsonlProblem> lines_;
  std::string prompt_, system_;
  sandbox::Sandbox* sandbox_;  // CODE only
};

JsonlKind KindFrom(proto::Problems::JsonlKind kind) {
  switch (kind) {
    case proto::Problems::CODE:
      return JsonlKind::kCode;
    case proto::Problems::CHOICE:
      return JsonlKind::kChoice;
    case proto::Problems::EXACT:
      return JsonlKind::kExact;
    case proto::Problems::MATH:
      break;
  }
  return JsonlKind::kMath;
}

absl::StatusOr<std::vector<JsonlProblem>> ReadLines(const std::string& path, JsonlKind kind) {
  ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  std::vector<JsonlProblem> lines;
  std::string_view line;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
    if (!more) break;
    if (IsBlank(line)) continue;
    ASSIGN_OR_RETURN(JsonlProblem problem, ReadJsonlProblem(line, kind, reader.Where()));
    lines.push_back(std::move(problem));
  }
  if (lines.empty()) return DamagedError(Concat(path, ": has no problem; a line is one; fill the file"));
  return lines;
}

// A gold that cannot even be told from 0 leaves most answers to it undecided.
absl::Status CheckGolds(const std::string& path, const std::vector<JsonlProblem>& lines) {
  const JsonlProblem* first = nullptr;
  size_t unclear = 0;
  for (const JsonlProblem& line : lines) {
    if (math::Grade(line.gold, "0").outcome != math::Outcome::kUndecided) continue;
    if (unclear++ == 0) first = &line;
  }
  if (unclear == 0) return absl::OkStatus();
  const std::string what =
      Concat(path, ": ", unclear, " of ", lines.size(),
             " golds are nothing that the math grader can compare (first ", first->id, ": \"",
             Printable(first->gold, 60), "\"), so most answers to them stay undecided; ");
  if (unclear == lines.size())
    return DamagedError(what + "correct them, or set problems.jsonl_kind to EXACT");
  LogLine(Concat("warning: ", what, "leave them out, or write them as docs/math_grader.md says"));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<JsonlProblem>> ReadSplit(const proto::Problems& problems, TaskSplit split,
                                                    JsonlKind kind) {
  const bool held_out = split == TaskSplit::kHeldOut;
  const bool own_file = !problems.held_out_jsonl().empty();
  if (held_out && own_file) return ReadLines(problems.held_out_jsonl(), kind);
  ASSIGN_OR_RETURN(std::vector<JsonlProblem> lines, ReadLines(problems.jsonl(), kind));
  const size_t all = lines.size();
  if (own_file) {
    ASSIGN_OR_RETURN(const std::vector<JsonlProblem> others, ReadLines(problems.held_out_jsonl(), kind));
    std::set<std::string> keys;
    for (const JsonlProblem& other : others) keys.insert(other.Key());
    std::erase_if(lines, [&](const JsonlProblem& line) { return keys.contains(line.Key()); });
    if (lines.size() != all)
      LogLine(Concat(problems.jsonl(), ": ", all - lines.size(), " of ", all, " problems are left out; ",
                     problems.held_out_jsonl(), " asks them too"));
  } else {
    std::erase_if(lines, [&](const JsonlProblem& line) {
      const RandomStream hash(0, "split/jsonl/" + line.Key());
      return (hash.Uniform(0) < problems.held_out()) != held_out;
    });
  }
  if (lines.empty())
    return UsageError(Concat("problems.held_out: of the ", all, " problems of ", problems.jsonl(), " the ",
                             held_out ? "held-out" : "training", " split has none; ",
                             own_file ? "give it others than held_out_jsonl has"
                                      : "set held_out nearer 0.5 or give held_out_jsonl"));
  return lines;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProblemSet>> MakeJsonl(const proto::Problems& problems, TaskSplit split,
                                                      sandbox::Sandbox* sandbox) {
  if (!(problems.held_out() >= 0 && problems.held_out() < 1))
    return UsageError(Concat("problems.held_out is ", problems.held_out(),
                             "; of a file it is a share from 0 to below 1; set it to 0.1"));
  if (!problems.prompt().empty() && problems.prompt().find("{question}") == std::string::npos)
    return UsageError(Concat("problems.prompt is \"", Printable(problems.prompt()),
                             "\"; without {question} every problem would ask the same; put it in"));
  const JsonlKind kind = KindFrom(problems.jsonl_kind());
  if (kind == JsonlKind::kCode && sandbox == nullptr)
    return UnavailableError(
        "problems.jsonl_kind is CODE; its answers run in the sandbox, which was not started; choose another "
        "kind or start it");
  ASSIGN_OR_RETURN(std::vector<JsonlProblem> lines, ReadSplit(problems, split, kind));
  if (kind == JsonlKind::kMath) {
    const bool other = split == TaskSplit::kHeldOut && !problems.held_out_jsonl().empty();
    RETURN_IF_ERROR(CheckGolds(other ? problems.held_out_jsonl() : problems.jsonl(), lines));
  }
  return std::make_unique<Jsonl>(kind, std::move(lines), problems, sandbox);
}

}  // namespace moebius
