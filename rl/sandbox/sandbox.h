// The code-reward sandbox as the rest of moebius uses it: started once, before MPI and threads, refused where
// the canaries are not held, then judging any number of programs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rl/sandbox/canaries.h"
#include "rl/sandbox/judge.h"
#include "rl/sandbox/runner.h"

namespace moebius::sandbox {

struct SandboxOptions {
  RunnerOptions runner;
  // A machine whose canaries are not held is used only where both say so.
  bool recipe_allows_unsafe = false;
  bool switch_allows_unsafe = false;
};

class Sandbox {
 public:
  // UnavailableError (69) naming each canary that is not held. Call with one thread, before MPI_Init.
  static absl::StatusOr<std::unique_ptr<Sandbox>> Start(const SandboxOptions& options);

  // Answers 0 to count-1 in order, as many at a time as there are slots. `make` is called from several
  // threads; `take` from one at a time. Ends at the first error of `make`, after the answers before it, and
  // with UnavailableError when the runner is gone: what it left is no verdict.
  absl::Status JudgeAll(size_t count, const std::function<absl::StatusOr<Job>(size_t)>& make,
                        const std::function<void(const Answer&)>& take);
  absl::StatusOr<std::vector<Answer>> JudgeAll(const std::vector<Job>& jobs);

  // UnavailableError where this machine does not judge right programs right; looked at once, as before the
  // first program of a language.
  absl::Status Trusts(Language language);

  bool isolated() const { return isolated_; }  // false: unsafe, to be said in every metric line and manifest
  const std::vector<Canary>& canaries() const { return canaries_; }

 private:
  Sandbox() = default;
  std::unique_ptr<Runner> runner_;
  std::vector<Canary> canaries_;
  bool isolated_ = false;
  std::mutex languages_mutex_;
  std::map<Language, absl::Status> languages_;  // tried so far
};

// A line for each canary that is not held: "fork: 13 processes (layers: none)".
std::vector<std::string> NotHeld(const std::vector<Canary>& canaries);

}  // namespace moebius::sandbox
