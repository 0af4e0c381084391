// What one kind of task adds to the drawing of splits (task.cc); not for users of tasks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/random.h"
#include "rl/tasks/task.h"

namespace moebius {

// Numbers of one item, in order.
class ItemDraws {
 public:
  explicit ItemDraws(uint64_t item_seed) : stream_(item_seed, "task item") {}
  // Uniform in [0, n).
  int64_t Below(int64_t n) { return static_cast<int64_t>(stream_.Below(next_++, n)); }
  // Uniform in [low, high].
  int64_t Between(int64_t low, int64_t high) { return low + Below(high - low + 1); }
  double Uniform() { return stream_.Uniform(next_++); }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

struct TaskCandidate {
  TaskItem item;
  std::string canonical;
};

class TaskKind {
 public:
  virtual ~TaskKind() = default;
  // nullopt: these draws make no item; the caller tries again with the next.
  virtual std::optional<TaskCandidate> Draw(ItemDraws& draws) const = 0;
  // `answer` is trimmed.
  virtual TaskScore Grade(const TaskItem& item, std::string_view answer) const = 0;
};

// Knobs have been checked.
std::unique_ptr<TaskKind> MakeSort(const TaskOptions& options);
std::unique_ptr<TaskKind> MakeAdd(const TaskOptions& options);
std::unique_ptr<TaskKind> MakeMultiply(const TaskOptions& options);
std::unique_ptr<TaskKind> MakeCountdown(const TaskOptions& options);
std::unique_ptr<TaskKind> MakeMaze(const TaskOptions& options);
std::unique_ptr<TaskKind> MakeLogic(const TaskOptions& options);

// Equality with the gold; dense is the share of equal places of the longer text.
TaskScore GradePlaces(std::string_view gold, std::string_view answer);

}  // namespace moebius
