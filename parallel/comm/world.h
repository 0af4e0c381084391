// A world: ranks that can talk to each other, as threads of this process or as processes of an MPI job, seen
// from one of them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/ledger.h"
#include "parallel/comm/links.h"
#include "parallel/comm/process_job.h"

namespace moebius {

struct WorldOptions {
  int ranks_per_node = 0;  // declared node size; 0: as the machine is
  LinkSpeeds links = {};   // slower links than there are, for studies
  bool ledger = true;
};

struct RankState;

// Outlives the rank's communicators and everything that is queued on its streams.
class World {
 public:
  // machine_rank: see below.
  World(std::unique_ptr<Transport> transport, const std::vector<int>& node_of_rank, int machine_rank,
        const WorldOptions& options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(node_of_rank_.size()); }
  int node() const { return node_of_rank_[rank_]; }
  // Among the ranks on this machine, whatever nodes are declared: which of its GPUs is this rank's.
  int machine_rank() const { return machine_rank_; }
  const std::vector<int>& node_of_rank() const { return node_of_rank_; }

  Communicator& all() { return *all_; }  // the group "world"

  // From any thread.
  void Abort(const absl::Status& status);  // fails the world on all ranks; see Communicator
  absl::Status status() const;
  TrafficCounters traffic() const;
  std::string OpenOperations() const;  // see open_operations.h
  // A call that has ended: what it was and from when to when, in seconds of std::chrono::steady_clock.
  struct Traced {
    Call call;
    std::string what;
    int layer = -1, index = -1;
    double start = 0, end = 0;
  };
  void SetTrace(std::function<void(const Traced&)> trace);  // called in the exchange thread; null: no more
  double OldestOpenSeconds() const;  // how long the oldest of them has been open; 0: none

  // Collective, waits for the stream; nothing may be queued on others. In a failed world it does not talk.
  absl::Status Close(Stream& stream);

 private:
  const int rank_;
  const std::vector<int> node_of_rank_;
  const int machine_rank_;
  std::unique_ptr<RankState> state_;
  std::unique_ptr<Communicator> all_;
};

// Fails the world when it goes out of scope without Dismiss(). Declared after a rank's streams: a rank that
// leaves early (error, exception, failed assertion) then fails the world before its streams wait for calls
// which nobody will answer.
class WorldGuard {
 public:
  explicit WorldGuard(World* world) : world_(world) {}
  ~WorldGuard();
  WorldGuard(const WorldGuard&) = delete;
  WorldGuard& operator=(const WorldGuard&) = delete;
  void Dismiss() { world_ = nullptr; }

 private:
  World* world_;
};

// Runs `body` on `size` threads, each a rank of one world (LogRank is set), and waits for all. The first rank
// that returns an error or throws fails the world, so that no other waits for it for ever; its error is
// returned, its exception thrown again. If no body says so itself, the world's failure is returned.
absl::Status RunRanks(int size, const WorldOptions& options, const std::function<absl::Status(World&)>& body);

// This process's rank of the job; collective.
std::unique_ptr<World> NewJobWorld(ProcessJob& process, const WorldOptions& options);

}  // namespace moebius
