// Problems drawn from a task: never read from disk, endless.
#include <limits>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/problems/problem_kinds.h"
#include "rl/problems/problems.pb.h"
#include "rl/problems/search_trace.h"

namespace moebius {
namespace {

struct Wording {
  std::string prompt, system;
};

class Procedural final : public ProblemSet {
 public:
  Procedural(std::unique_ptr<Task> task, const TaskOptions& options, Wording wording,
             std::optional<SearchOptions> search)
      : task_(std::move(task)), options_(options), wording_(std::move(wording)), search_(search) {}

  int64_t size() const override { return 0; }
  bool has_dense() const override { return true; }

  Problem At(uint64_t index) const override {
    TaskItem item = task_->Item(index);
    Problem problem{
        .id = Concat(options_.kind, options_.split == TaskSplit::kTrain ? "/train/" : "/held-out/", index),
        .messages = {},
        .gold = std::move(item.gold),
        .index = index};
    if (!wording_.system.empty()) problem.messages.push_back({"system", wording_.system});
    problem.messages.push_back({"user", wording_.prompt.empty() ? item.prompt : Worded(item)});
    return problem;
  }

  WorkedAnswer Demonstration(const Problem& problem, uint64_t seed) const override {
    if (!search_) return {.thoughts = "", .answer = problem.gold};
    const TaskItem item = task_->Item(problem.index);
    return SearchTrace(std::span(item.data).subspan(1), item.data[0], *search_, seed);
  }

  absl::StatusOr<Judgement> Judge(const Problem& problem, std::string_view answer) const override {
    const TaskScore score = task_->Grade(task_->Item(problem.index), answer);
    return Judgement{.correct = score.correct,
                     .dense = score.dense,
                     .verdict = score.correct == 1 ? "equal" : "different"};
  }

 private:
  std::string Worded(const TaskItem& item) const {
    std::vector<std::pair<std::string_view, std::string>> values = {{"question", item.prompt}};
    if (options_.kind == "add" || options_.kind == "multiply") {
      values.emplace_back("a", Concat(item.data[0]));
      values.emplace_back("b", Concat(item.data[1]));
    }
    return FillIn(wording_.prompt, values);
  }

  std::unique_ptr<Task> task_;
  TaskOptions options_;
  Wording wording_;
  std::optional<SearchOptions> search_;  // worked answers are searches
};

// MakeTask checks ranges; what does not fit an int is out of all of them.
int Clamped(int64_t value) {
  using Limits = std::numeric_limits<int>;
  return static_cast<int>(std::clamp<int64_t>(value, Limits::min(), Limits::max()));
}

TaskOptions OptionsFrom(const proto::Problems& p, TaskSplit split) {
  return {.kind = p.kind(),
          .seed = p.seed(),
          .split = split,
          .held_out = p.held_out(),
          .style = p.style() == proto::Problems::SENTENCE ? PromptStyle::kSentence : PromptStyle::kTerse,
          .sort_length = Clamped(p.sort_length()),
          .add_digits = Clamped(p.add_digits()),
          .multiply_low = p.multiply_low(),
          .multiply_high = p.multiply_high(),
          .countdown_numbers = Clamped(p.countdown_numbers()),
          .countdown_highest = p.countdown_highest(),
          .countdown_target = p.countdown_target(),
          .countdown_division = p.countdown_division(),
          .maze_rows = Clamped(p.maze_rows()),
          .maze_cols = Clamped(p.maze_cols()),
          .maze_walls = p.maze_walls(),
          .maze_distance = Clamped(p.maze_distance()),
          .maze_shortest = p.maze_shortest(),
          .logic_persons = Clamped(p.logic_persons()),
          .logic_statements = Clamped(p.logic_statements())};
}

absl::Status CheckPrompt(const proto::Problems& p) {
  const std::string_view prompt = p.prompt();
  const auto has = [&](std::string_view place) { return prompt.find(place) != std::string_view::npos; };
  if (prompt.empty() || has("{question}")) return absl::OkStatus();
  const bool pair = p.kind() == "add" || p.kind() == "multiply";
  if (pair && has("{a}") && has("{b}")) return absl::OkStatus();
  return UsageError(Concat("problems.prompt is \"", Printable(prompt), "\"; without ",
                           pair ? "{question}, or both {a} and {b}," : "{question}",
                           " every problem would ask the same; put it in"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProblemSet>> MakeProcedural(const proto::Problems& problems, TaskSplit split) {
  const TaskOptions options = OptionsFrom(problems, split);
  absl::StatusOr<std::unique_ptr<Task>> task = MakeTask(options);
  if (!task.ok()) return Annotate(task.status(), "problems");
  RETURN_IF_ERROR(CheckPrompt(problems));
  std::optional<SearchOptions> search;
  if (problems.countdown_scratchpad()) {
    if (problems.kind() != "countdown")
      return UsageError(Concat("problems.countdown_scratchpad is true and problems.kind \"", problems.kind(),
                               "\"; only countdown has a scratch-pad; remove one"));
    if (problems.scratchpad_tries() < 1 || problems.scratchpad_tries() > 1000)
      return UsageError(Concat("problems.scratchpad_tries is ", problems.scratchpad_tries(),
                               "; it must lie in [1, 1000]; set it to 4"));
    if (!(problems.scratchpad_patient() >= 0 && problems.scratchpad_patient() <= 1))
      return UsageError(Concat("problems.scratchpad_patient is ", problems.scratchpad_patient(),
                               "; a share lies in [0, 1]; set it to 0.15"));
    search = {.tries = problems.scratchpad_tries(),
              .patient = problems.scratchpad_patient(),
              .division = options.countdown_division};
  }
  return std::make_unique<Procedural>(*std::move(task), options,
                                      Wording{problems.prompt(), problems.system()}, search);
}

}  // namespace moebius
