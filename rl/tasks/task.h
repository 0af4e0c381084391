// Procedural tasks for reinforcement: items drawn from a seed, and graders that are exact. Nothing is read
// from disk, so a run needs no data and an evaluation can hold out what training never saw.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace moebius {

enum class TaskSplit { kTrain, kHeldOut };
// kTerse is for small models trained on nothing else ("sort 31415="), kSentence says what to write.
enum class PromptStyle { kTerse, kSentence };

// Only the knobs of `kind` are read; each says its valid range.
struct TaskOptions {
  std::string kind = "sort";  // sort, add, multiply, countdown, maze, logic
  uint64_t seed = 0;
  TaskSplit split = TaskSplit::kTrain;
  double held_out = 0.1;  // share of canonical items that are held out, above 0 and below 1
  PromptStyle style = PromptStyle::kTerse;

  int sort_length = 5;  // digits, 2 to 100
  int add_digits = 2;   // of both numbers, 1 to 18
  // Factors lie in [low, high]; 0 <= low < high <= 1,000,000,000.
  int64_t multiply_low = 2, multiply_high = 99;
  int countdown_numbers = 4;         // 2 to 6
  int64_t countdown_highest = 25;    // given numbers lie in [1, highest]; 2 to 999
  int64_t countdown_target = 100;    // targets lie in [1, target]; 2 to 1,000,000
  bool countdown_division = false;   // allow / beside + - *
  int maze_rows = 5, maze_cols = 5;  // 2 to 30 each
  double maze_walls = 0.3;           // share of wall cells, 0 to 0.4
  int maze_distance = 2;             // moves of the shortest path at least; 1 to rows + cols - 2
  bool maze_shortest = true;         // only shortest paths are right, else every path
  int logic_persons = 3;             // 2 to 4
  int logic_statements = 1;          // of each person, 1 to 3
};

struct TaskItem {
  std::string prompt;
  std::string gold;  // an answer that Grade calls right
  // What Grade needs beside `gold`; each kind has its own form. Add and multiply: the two numbers.
  std::vector<int64_t> data;
};

struct TaskScore {
  double correct = 0;  // 1 or 0
  double dense = 0;    // in [0, 1], and 1 exactly when correct
};

class Task {
 public:
  virtual ~Task() = default;

  // A pure function of (kind, knobs, seed, split, index). An item belongs to the held-out split when a hash
  // of its canonical form, which is independent of seed and style, falls below `held_out`: so two tasks of
  // one kind and one `held_out` but different splits never share a canonical item, whatever their seeds and
  // knobs. Canonical is: sort, the multiset of digits; add and multiply, the unordered pair; countdown, the
  // multiset of numbers with the target; maze, the grid; logic, the statements up to renaming persons.
  // Indices may repeat an item where the knobs allow few.
  virtual TaskItem Item(uint64_t index) const = 0;

  // `answer` is the answer alone, without reasoning or tags; blanks around it are dropped, nothing else is
  // forgiven. An answer above 4096 bytes scores 0. Dense scores: sort and logic, the share of right places of
  // the longer text; add and multiply, the same counted from the last digit; countdown, for a legal
  // expression of value v other than the target t, 0.1 + 0.4 / (1 + |v - t|); maze, see maze.cc.
  virtual TaskScore Grade(const TaskItem& item, std::string_view answer) const = 0;
};

// UsageError: an unknown kind, a knob out of its range, or knobs that leave the split empty.
absl::StatusOr<std::unique_ptr<Task>> MakeTask(const TaskOptions& options);

}  // namespace moebius
