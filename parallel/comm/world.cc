#include "parallel/comm/world.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include "core/base/check.h"
#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/direct.h"
#include "parallel/comm/group.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/rank_state.h"
#include "parallel/comm/staged.h"

namespace moebius {

namespace {

std::vector<int> DeclaredNodes(int size, int ranks_per_node) {
  std::vector<int> node_of_rank(size, 0);
  for (int rank = 0; rank < size && ranks_per_node > 0; ++rank) node_of_rank[rank] = rank / ranks_per_node;
  return node_of_rank;
}

}  // namespace

World::World(std::unique_ptr<Transport> transport, const std::vector<int>& node_of_rank, int machine_rank,
             const WorldOptions& options)
    : rank_(transport->rank()),
      node_of_rank_(node_of_rank),
      machine_rank_(machine_rank),
      state_(std::make_unique<RankState>()) {
  auto info = std::make_shared<GroupInfo>();
  info->name = "world";
  info->world_ranks.resize(transport->size());
  std::iota(info->world_ranks.begin(), info->world_ranks.end(), 0);
  info->rank = rank_;
  state_->transport = NewLinkTransport(std::move(transport), node_of_rank_, options.links);
  state_->ledger = options.ledger;
  all_ = NewGroup(state_.get(), std::move(info));
}

World::~World() = default;

void World::Abort(const absl::Status& status) { state_->transport->Abort(status); }
absl::Status World::status() const { return state_->transport->status(); }
TrafficCounters World::traffic() const { return state_->transport->traffic(); }
std::string World::OpenOperations() const { return state_->open.Text(); }
void World::SetTrace(std::function<void(const Traced&)> trace) {
  if (trace == nullptr) return state_->open.SetSink(nullptr);
  state_->open.SetSink([trace = std::move(trace)](const OpenOperations::Record& record,
                                                  std::chrono::steady_clock::time_point end) {
    const auto seconds = [](std::chrono::steady_clock::time_point t) {
      return std::chrono::duration<double>(t.time_since_epoch()).count();
    };
    const LedgerEntry& entry = record.entry;
    trace({entry.call, entry.what, entry.layer, entry.index, seconds(record.since), seconds(end)});
  });
}
double World::OldestOpenSeconds() const { return state_->open.OldestSeconds(); }

absl::Status World::Close(Stream& stream) {
  const absl::Status status = all_->Close(stream);
  state_->transport->Close();
  return status;
}

WorldGuard::~WorldGuard() {
  if (world_) {
    world_->Abort(absl::AbortedError(Concat("rank ", world_->rank(), " left before it was done")));
  }
}

absl::Status RunRanks(int size, const WorldOptions& options,
                      const std::function<absl::Status(World&)>& body) {
  CHECK_GE(size, 1);
  InProcessHub hub(size);
  const std::vector<int> nodes = DeclaredNodes(size, options.ranks_per_node);
  std::mutex mutex;
  absl::Status first_error;
  std::exception_ptr first_exception;
  const auto run = [&](int rank) {
    SetLogRank(rank);
    World world(hub.NewTransport(rank), nodes, rank, options);
    absl::Status status;
    std::exception_ptr exception;
    try {
      status = body(world);
    } catch (...) {
      exception = std::current_exception();
      status = absl::AbortedError("an exception");
    }
    if (status.ok()) return;
    {
      std::lock_guard lock(mutex);
      // An error of a rank's own comes before the world's failure that it caused elsewhere.
      const absl::Status failure = hub.status();
      // What all have agreed on is told by the rank that knows most of it.
      const bool tells = IsAgreed(status) && IsSpeaker(world.all(), status);
      if (first_error.ok() || (first_error == failure && status != failure) ||
          (tells && IsAgreed(first_error))) {
        first_error = status;
        first_exception = exception;
      }
    }
    // All leave with what they agreed on; one that is still about it must hear the end.
    if (!IsAgreed(status)) hub.Abort(Annotate(status, Concat("rank ", rank)));
  };
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) ranks.emplace_back(run, rank);
  for (std::thread& thread : ranks) thread.join();
  if (first_exception) std::rethrow_exception(first_exception);
  return first_error.ok() ? hub.status() : first_error;
}

std::unique_ptr<World> NewJobWorld(ProcessJob& process, const WorldOptions& options) {
  const std::vector<int> machines = process.NodeOfRank();
  const std::vector<int> nodes =
      options.ranks_per_node > 0 ? DeclaredNodes(process.size(), options.ranks_per_node) : machines;
  const auto own = machines.begin() + process.rank();
  const int machine_rank = static_cast<int>(std::count(machines.begin(), own, *own));
  return std::make_unique<World>(NewDirectTransport(NewStagedTransport(process.NewTransport())), nodes,
                                 machine_rank, options);
}

}  // namespace moebius
