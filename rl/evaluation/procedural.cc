// The procedural sets of rl/tasks: items that training never drew, with exact graders.
#include "core/base/strings.h"
#include "rl/evaluation/final_answer.h"
#include "rl/evaluation/makers.h"
#include "rl/tasks/distinct.h"

namespace moebius {
namespace {

constexpr int64_t kItems = 500;

class TaskGrader final : public Grader {
 public:
  TaskGrader(std::unique_ptr<Task> task, std::vector<TaskItem> items, AnswerLine line)
      : task_(std::move(task)), items_(std::move(items)), line_(line) {}

  absl::StatusOr<std::vector<Graded>> Grade(const std::vector<Attempt>& attempts) const override {
    std::vector<Graded> out;
    for (const Attempt& attempt : attempts) {
      std::optional<std::string> found = FindShortAnswer(attempt.answer, line_);
      if (!found) {
        out.push_back({.outcome = Outcome::kNoAnswer, .verdict = "no answer", .dense = 0});
        continue;
      }
      const TaskScore score = task_->Grade(items_[attempt.question], *found);
      const bool right = score.correct == 1;
      out.push_back({.outcome = right ? Outcome::kRight : Outcome::kWrong,
                     .extracted = *std::move(found),
                     .verdict = right ? "equal" : "different",
                     .dense = score.dense});
    }
    return out;
  }
  bool votes() const override { return true; }
  bool Same(std::string_view a, std::string_view b) const override { return a == b; }

 private:
  std::unique_ptr<Task> task_;
  std::vector<TaskItem> items_;
  AnswerLine line_;
};

}  // namespace

absl::StatusOr<Benchmark> MakeProcedural(const std::string& kind, const BenchmarkOptions& options) {
  const bool chat = options.asking == Asking::kChat;
  TaskOptions knobs = options.task;
  knobs.kind = kind;
  knobs.split = TaskSplit::kHeldOut;
  ASSIGN_OR_RETURN(std::unique_ptr<Task> task, MakeTask(knobs));
  const int64_t shots = options.shots.value_or(0);
  const bool terse = knobs.style == PromptStyle::kTerse;
  Benchmark out{.protocol = Concat(terse ? "terse, " : "", ProtocolText(shots, options.asking)),
                .shots = shots};
  // A sentence in a text needs a place where the answer begins; a terse prompt has its own.
  const std::string opening = chat || terse ? "" : "\nAnswer:", blank = chat || terse ? "" : " ";
  std::vector<TaskItem> items;
  const int64_t most = options.limit.value_or(kItems);
  for (const uint64_t i : DistinctDraws(most, [&](uint64_t draw) { return task->Item(draw).prompt; })) {
    items.push_back(task->Item(i));
    out.questions.push_back(
        {.id = Concat(kind, "/", i), .ask = items.back().prompt + opening, .gold = items.back().gold});
  }
  ExampleSet& set = out.examples.emplace_back();
  if (shots > 0) {
    if (!chat) out.stops = {"\n\n"};  // behind an example
    knobs.split = TaskSplit::kTrain;
    ASSIGN_OR_RETURN(const std::unique_ptr<Task> train, MakeTask(knobs));
    for (int64_t i = 0; i < shots; ++i) {
      const TaskItem item = train->Item(i);
      set.examples.push_back({item.prompt + opening, blank + item.gold});
    }
  }
  out.grader = std::make_unique<TaskGrader>(
      std::move(task), std::move(items),
      options.answer_line.value_or(chat ? AnswerLine::kLast : AnswerLine::kFirst));
  out.max_new = 256;
  return out;
}

}  // namespace moebius
