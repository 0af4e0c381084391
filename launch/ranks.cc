#include "launch/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/backend/backend.h"
#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "launch/environment.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/process_job.h"
#include "parallel/comm/solo_world.h"

namespace moebius {

Watchdog::Watchdog(const World& world, double limit_s, std::function<void(int code)> end)
    : world_(world), limit_s_(limit_s), end_(std::move(end)) {
  if (limit_s > 0 && world.size() > 1) {
    thread_ = std::thread([this, rank = LogRank()] {
      SetLogRank(rank);
      Watch();
    });
  }
}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::Describe(std::function<std::string()> describe) {
  std::lock_guard lock(mutex_);
  describe_ = std::move(describe);
}

void Watchdog::Watch() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::milliseconds(200), [this] { return stop_; })) {
    if (world_.OldestOpenSeconds() < limit_s_) continue;
    char limit[32];
    std::snprintf(limit, sizeof limit, "%.4g", limit_s_);
    LogLine(Concat("error: rank ", world_.rank(), " waited longer than parallel.hang_limit_s = ", limit,
                   " s; a peer hangs or is lost; ",
                   describe_ ? Concat("at ", describe_(), "; ") : std::string(),
                   "open: ", world_.OpenOperations()));
    end_(kExitHang);
  }
}

int Rank::Threads(int64_t asked) const {
  const Environment machine = ReadEnvironment();
  const int64_t threads = asked > 0 ? asked : machine.usable_cores;
  // mpirun gives each process cores of its own, unless it was told otherwise (or cores are short).
  const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  const bool shared = asked == 0 && local != nullptr && machine.usable_cores == machine.logical_cores;
  const int sharers = shared ? std::max(1, std::atoi(local)) : ranks_here;
  return static_cast<int>(std::max<int64_t>(1, threads / sharers));
}

namespace {

absl::Status RunProcessRank(const RankOptions& options, const std::function<absl::Status(Rank&)>& body) {
  if (options.ranks > 1) {
    return UsageError(
        Concat("--ranks ", options.ranks, " under mpirun; one process is one rank there; leave --ranks out"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ProcessJob> process, ProcessJob::Start());
  SetLogRank(process->rank());
  absl::Status status;
  absl::Status world_status;
  {
    const std::unique_ptr<World> world = NewJobWorld(*process, options.world);
    Watchdog watchdog(*world, options.hang_limit_s, [&process](int code) { process->Exit(code); });
    Rank rank{*world, watchdog, 1};
    status = body(rank);
    world_status = world->status();
    const bool together = status.ok() || ExitCode(status) == kExitStopped;
    if (!together || !world_status.ok()) {
      if (status.ok()) status = world_status;
      // The world's failure was said by the rank that caused it.
      const bool speaks = world_status.ok() ? IsSpeaker(world->all(), status) : process->rank() == 0;
      if (speaks) LogLine(Concat("error: ", std::string(status.message())));
      // The first rank that exits ends all: let the one that speaks be it, or nobody may have spoken.
      if (!speaks && world_status.ok()) std::this_thread::sleep_for(std::chrono::seconds(1));
      std::fflush(nullptr);
      process->Exit(ExitCode(status) == 0 ? kExitInternal : ExitCode(status));
    }
    const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
    const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kExchange);
    RETURN_IF_ERROR(world->Close(*stream));
  }
  process->Finalize();
  // One rank speaks for all.
  if (!status.ok() && process->rank() != 0) std::exit(ExitCode(status));
  return status;
}

}  // namespace

absl::Status RefuseOnAllRanks(const RankOptions& options, const absl::Status& status) {
  if (!ProcessJob::Launched()) return status;
  return RunAsRanks(options, [&](Rank& rank) {
    const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
    const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kExchange);
    return Agree(rank.world.all(), *stream, status);
  });
}

absl::Status RunAsRanks(const RankOptions& options, const std::function<absl::Status(Rank&)>& body) {
  const auto end = [](int code) {
    std::fflush(nullptr);
    _exit(code);
  };
  if (ProcessJob::Launched()) return RunProcessRank(options, body);
  if (options.ranks == 1) {
    SoloWorld world;
    Watchdog watchdog(*world, 0, end);
    Rank rank{*world, watchdog, 1};
    return body(rank);
  }
  return RunRanks(options.ranks, options.world, [&](World& world) {
    Watchdog watchdog(world, options.hang_limit_s, end);
    Rank rank{world, watchdog, options.ranks};
    return body(rank);
  });
}

}  // namespace moebius
