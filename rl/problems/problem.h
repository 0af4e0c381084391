// Questions whose answers can be judged: what a run of reinforcement asks. A set is drawn from a procedural
// task (rl/tasks) or read from a file of JSON lines; everything about rewards beyond the judgement is in
// scoring.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/chat_template.h"
#include "rl/tasks/task.h"

namespace moebius {

namespace proto {
class Problems;
}
namespace sandbox {
class Sandbox;
}

struct Problem {
  std::string id;                     // for logs: "sort/train/17", the line's own "id", or "PATH line 12"
  std::vector<ChatMessage> messages;  // the last is the user's
  std::string gold;                   // an answer that is right; "" for programs
  uint64_t index = 0;                 // its own in the set
  // Of everything that a judgement which depends on time comes from, but the answer; "" where none does.
  std::string fingerprint = {};
};

// What became of one answer.
struct Judgement {
  std::optional<double> correct;  // 1 or 0; nullopt: could not be computed, which is never the same as 0
  std::optional<double> dense;    // in [0, 1], 1 exactly when correct; nullopt also where the set has none
  // "equal", "different", "undecided", a sandbox verdict ("OK", "WRONG", ...), or a letter chosen ("B",
  // "none", "several").
  std::string verdict;
  bool depends_on_time = false;  // judged again it might differ: journal it
  // 1 or 0 by the tests that the prompt shows alone; nullopt where none is marked so, or all are.
  std::optional<double> visible = std::nullopt;

  bool operator==(const Judgement&) const = default;
};

// An answer to learn from. Both "" where there is none.
struct WorkedAnswer {
  std::string thoughts;
  std::string answer;
};

// Immutable; every method may be called from several threads.
class ProblemSet {
 public:
  virtual ~ProblemSet() = default;

  virtual int64_t size() const = 0;  // 0: endless
  virtual bool has_dense() const = 0;
  // A pure function of index; a set of size n counts round.
  virtual Problem At(uint64_t index) const = 0;
  // A pure function of both. Thoughts may miss: then the answer is the best that they found, and wrong.
  virtual WorkedAnswer Demonstration(const Problem& problem, uint64_t seed) const = 0;
  // `answer` is without thoughts and tags (answer_form.h). Blocks while a program runs. An error is one of
  // the machine, never of the answer.
  virtual absl::StatusOr<Judgement> Judge(const Problem& problem, std::string_view answer) const = 0;
};

// `sandbox` (borrowed, outlives the set) is needed for jsonl_kind CODE only. UsageError naming the field for
// a value out of its range or a split without problems, MissingError or DamagedError with path and line for a
// file, UnavailableError for CODE without a sandbox.
absl::StatusOr<std::unique_ptr<ProblemSet>> MakeProblemSet(const proto::Problems& problems, TaskSplit split,
                                                           sandbox::Sandbox* sandbox = nullptr);

}  // namespace moebius
