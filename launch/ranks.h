// Starts the ranks of a verb: one alone, threads of this process (--ranks N), or this process's part of an
// MPI job (mpirun, srun); and ends them together, whatever happens to one of them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "parallel/comm/world.h"

namespace moebius {

// Ends the job with exit code 79 when this rank has waited for another one for too long, and says who, where
// and for whom. A thread of its own: it works while the rank does not.
class Watchdog {
 public:
  // limit_s 0: never. `end` ends all ranks of the job with a code and does not return.
  Watchdog(const World& world, double limit_s, std::function<void(int code)> end);
  ~Watchdog();
  // What the rank is doing ("step 12, F1.3"), for the report; from any thread, until Forget.
  void Describe(std::function<std::string()> describe);
  void Forget() { Describe(nullptr); }
  // While the others rightly wait for one rank: no wait is too long.
  void Suspend(bool suspended) { suspended_ = suspended; }

 private:
  void Watch();

  const World& world_;
  double limit_s_;
  std::function<void(int)> end_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<std::string()> describe_;
  std::atomic<bool> suspended_ = false;
  bool stop_ = false;
  std::thread thread_;
};

class HostTalk;

struct Rank {
  World& world;
  Watchdog& watchdog;
  int ranks_here = 1;  // in this process
  // Compute threads of this rank when the user asks for `asked` a process; 0: its share of the cores that are
  // there for the ranks of this machine.
  int Threads(int64_t asked) const;
};

struct RankOptions {
  int ranks = 1;  // threads as ranks; under mpirun: 1
  WorldOptions world = {};
  double hang_limit_s = 0;
};

// For an error that a process has before there are ranks (its recipe): under MPI one rank reports it for all.
absl::Status RefuseOnAllRanks(const RankOptions& options, const absl::Status& status);

// Ranks that do other jobs, or run other programs, would compute nonsense or hang: UsageError where `job` (a
// recipe's text and what else decides it) or the build is not rank 0's.
absl::Status CheckSameEverywhere(const std::string& job, const World& world, HostTalk& talk);

// Whether all ranks leave `body` with this status at the same place, with nothing under way between them:
// OK, StoppedError, and bad numbers that they have agreed on.
bool EndsTogether(const absl::Status& status);

// Runs `body` on every rank. The first error ends all ranks and is returned. Where ranks are processes, what
// ends together returns on all of them; with any other error the process ends here, with the error's exit
// code for the whole job, and the rank that knows why says so.
absl::Status RunAsRanks(const RankOptions& options, const std::function<absl::Status(Rank&)>& body);

}  // namespace moebius
