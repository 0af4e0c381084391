#include "rl/tasks/task.h"

#include <algorithm>
#include <utility>

#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/tasks/task_kind.h"

namespace moebius {
namespace {

constexpr size_t kLongestAnswer = 4096;
constexpr int kProbes = 20000;

using KindMaker = std::unique_ptr<TaskKind> (*)(const TaskOptions&);
constexpr std::pair<std::string_view, KindMaker> kTaskKinds[] = {
    {"sort", MakeSort},           {"add", MakeAdd},   {"multiply", MakeMultiply},
    {"countdown", MakeCountdown}, {"maze", MakeMaze}, {"logic", MakeLogic}};

class SplitTask final : public Task {
 public:
  SplitTask(const TaskOptions& options, std::unique_ptr<TaskKind> kind)
      : kind_name_(options.kind),
        split_(options.split),
        held_out_(options.held_out),
        item_seeds_(options.seed, Concat("task/", options.kind, "/", SplitName())),
        kind_(std::move(kind)) {}

  // Whether the split has an item that few draws find; Item relies on it to end.
  bool HasItems() const {
    ItemDraws draws(item_seeds_.Bits(0));
    for (int i = 0; i < kProbes; ++i)
      if (DrawOfSplit(draws)) return true;
    return false;
  }
  std::string_view SplitName() const { return split_ == TaskSplit::kTrain ? "train" : "held-out"; }

  TaskItem Item(uint64_t index) const override {
    ItemDraws draws(item_seeds_.Bits(index));
    for (;;)
      if (std::optional<TaskCandidate> candidate = DrawOfSplit(draws)) return std::move(candidate->item);
  }

  TaskScore Grade(const TaskItem& item, std::string_view answer) const override {
    if (answer.size() > kLongestAnswer) return {};
    constexpr std::string_view kBlanks = " \t\r\n";
    const size_t first = answer.find_first_not_of(kBlanks);
    if (first == std::string_view::npos) return {};
    return kind_->Grade(item, answer.substr(first, answer.find_last_not_of(kBlanks) - first + 1));
  }

 private:
  std::optional<TaskCandidate> DrawOfSplit(ItemDraws& draws) const {
    std::optional<TaskCandidate> candidate = kind_->Draw(draws);
    if (!candidate) return std::nullopt;
    const RandomStream hash(0, "split/" + kind_name_ + "/" + candidate->canonical);
    const bool held_out = hash.Uniform(0) < held_out_;
    if (held_out != (split_ == TaskSplit::kHeldOut)) return std::nullopt;
    return candidate;
  }

  std::string kind_name_;
  TaskSplit split_;
  double held_out_;
  RandomStream item_seeds_;
  std::unique_ptr<TaskKind> kind_;
};

template <typename T>
absl::Status CheckKnob(std::string_view name, T value, T low, T high) {
  if (low <= value && value <= high) return absl::OkStatus();
  const T nearest = value < low ? low : high;
  return UsageError(Concat("task knob ", name, " is ", value, "; it must lie in [", low, ", ", high,
                           "]; set ", name, " to ", nearest));
}

absl::Status CheckKnobs(const TaskOptions& o) {
  if (!(o.held_out > 0 && o.held_out < 1))
    return UsageError(
        Concat("task knob held_out is ", o.held_out,
               "; both splits need items, so it must lie between 0 and 1; set held_out to 0.1"));
  if (o.kind == "sort") return CheckKnob("sort_length", o.sort_length, 2, 100);
  if (o.kind == "add") return CheckKnob("add_digits", o.add_digits, 1, 18);
  if (o.kind == "multiply") {
    constexpr int64_t kHighest = 1'000'000'000;
    RETURN_IF_ERROR(CheckKnob<int64_t>("multiply_low", o.multiply_low, 0, kHighest - 1));
    return CheckKnob<int64_t>("multiply_high", o.multiply_high, o.multiply_low + 1, kHighest);
  }
  if (o.kind == "countdown") {
    RETURN_IF_ERROR(CheckKnob("countdown_numbers", o.countdown_numbers, 2, 6));
    RETURN_IF_ERROR(CheckKnob<int64_t>("countdown_highest", o.countdown_highest, 2, 999));
    return CheckKnob<int64_t>("countdown_target", o.countdown_target, 2, 1'000'000);
  }
  if (o.kind == "maze") {
    RETURN_IF_ERROR(CheckKnob("maze_rows", o.maze_rows, 2, 30));
    RETURN_IF_ERROR(CheckKnob("maze_cols", o.maze_cols, 2, 30));
    RETURN_IF_ERROR(CheckKnob("maze_walls", o.maze_walls, 0.0, 0.4));
    return CheckKnob("maze_distance", o.maze_distance, 1, o.maze_rows + o.maze_cols - 2);
  }
  RETURN_IF_ERROR(CheckKnob("logic_persons", o.logic_persons, 2, 4));
  return CheckKnob("logic_statements", o.logic_statements, 1, 3);
}

}  // namespace

TaskScore GradePlaces(std::string_view gold, std::string_view answer) {
  const size_t common = std::min(gold.size(), answer.size());
  size_t right = 0;
  for (size_t i = 0; i < common; ++i) right += gold[i] == answer[i];
  const double dense = static_cast<double>(right) / std::max(gold.size(), answer.size());
  return {.correct = gold == answer ? 1.0 : 0.0, .dense = dense};
}

absl::StatusOr<std::unique_ptr<Task>> MakeTask(const TaskOptions& options) {
  std::vector<std::string> names;
  KindMaker make = nullptr;
  for (const auto& [name, maker] : kTaskKinds) {
    names.emplace_back(name);
    if (name == options.kind) make = maker;
  }
  if (make == nullptr) {
    const std::string nearest = Nearest(options.kind, names);
    return UsageError(Concat("no task \"", Printable(options.kind), "\"; the tasks are ", Join(names), "; ",
                             nearest.empty() ? "choose one" : Concat("did you mean \"", nearest, "\"?")));
  }
  RETURN_IF_ERROR(CheckKnobs(options));
  auto task = std::make_unique<SplitTask>(options, make(options));
  if (!task->HasItems())
    return UsageError(Concat("task ", options.kind, " has no item in its ", task->SplitName(), " split; ",
                             kProbes,
                             " draws found none, since these knobs allow too few items; make it harder "
                             "or move held_out towards 0.5"));
  return task;
}

}  // namespace moebius
