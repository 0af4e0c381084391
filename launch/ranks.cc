#include "launch/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "core/backend/backend.h"
#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/hash.h"
#include "launch/environment.h"
#include "launch/train/host_talk.h"
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
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kTick(200);
  // Longer than a busy machine holds up a thread, and a part of the limit.
  const auto stopped =
      std::max<std::chrono::duration<double>>(4 * kTick, std::chrono::duration<double>(limit_s_ / 4));
  std::unique_lock lock(mutex_);
  // A process that was stopped itself kept the others waiting: its own waits count from when it woke.
  Clock::time_point awake = Clock::now();
  for (Clock::time_point tick = awake; !changed_.wait_for(lock, kTick, [this] { return stop_; });) {
    const Clock::time_point last = std::exchange(tick, Clock::now());
    if (tick - last > stopped) awake = tick;
    const double awake_s = std::chrono::duration<double>(tick - awake).count();
    if (suspended_ || std::min(awake_s, world_.OldestOpenSeconds()) < limit_s_) continue;
    char limit[32];
    std::snprintf(limit, sizeof limit, "%.4g", limit_s_);
    LogLine(Concat("error: rank ", world_.rank(), " waited longer than parallel.hang_limit_s = ", limit,
                   " s; a peer hangs, is lost or is slow (then raise the limit); ",
                   describe_ ? Concat("at ", describe_(), "; ") : std::string(),
                   "open: ", world_.OpenOperations()));
    // The first to end ends all: whoever waits for the lost rank itself may be a tick behind.
    std::this_thread::sleep_for(3 * kTick);
    end_(kExitHang);
  }
}

int Rank::Threads(int64_t asked) const {
  const Environment machine = ReadEnvironment();
  const int64_t threads = asked > 0 ? asked : machine.usable_cores;
  // mpirun gives each process cores of its own, unless it was told otherwise (or cores are short).
  const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  if (local == nullptr) local = std::getenv("MOEBIUS_LOCAL_SIZE");  // of launch/moebius-processes
  const bool shared = asked == 0 && local != nullptr && machine.usable_cores == machine.logical_cores;
  const int sharers = shared ? std::max(1, std::atoi(local)) : ranks_here;
  return static_cast<int>(std::max<int64_t>(1, threads / sharers));
}

absl::Status CheckSameEverywhere(const std::string& job, const World& world, HostTalk& talk) {
  const std::string mine = Concat(Sha256Hex(job), " ", ReadEnvironment().commit);
  ASSIGN_OR_RETURN(const std::vector<std::string> all, talk.Gather(mine));
  for (int r = 1; r < world.size(); ++r) {
    if (all[r] == all[0]) continue;
    const bool jobs = all[r].substr(0, all[r].find(' ')) != all[0].substr(0, all[0].find(' '));
    return UsageError(
        Concat("rank ", r, jobs ? " has another recipe or other flags" : " runs another build of moebius",
               " than rank 0; all ranks must have the same; start them from one folder that all hosts see"));
  }
  return absl::OkStatus();
}

bool EndsTogether(const absl::Status& status) {
  return status.ok() || ExitCode(status) == kExitStopped ||
         (ExitCode(status) == kExitBadNumbers && IsAgreed(status));
}

namespace {

bool Repeats(const absl::Status& status, const absl::Status& other) {
  return status.message().find(other.message()) != std::string_view::npos;
}

// Whether this rank is the one to say why it failed. What it has only heard of (the world's failure) is said
// by the rank that it comes from, and so is what that one found out for itself at the same time.
bool Speaks(World& world, const absl::Status& status, const absl::Status& world_status) {
  if (world_status.ok() || IsAgreed(status)) return IsSpeaker(world.all(), status);
  if (Repeats(status, world_status)) return false;
  const bool mine = world_status.message().find(Concat("rank ", world.rank(), ":")) == 0;
  return mine || !Repeats(world_status, status);
}

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
    if (!EndsTogether(status) || !world_status.ok()) {
      if (status.ok()) status = world_status;
      const bool speaks = Speaks(*world, status, world_status);
      // The first rank that exits ends all: let the one that speaks be it, or nobody may have spoken. Of what
      // all ranks find out at once rank 0 is the first to speak. Where no rank has for so long (it was
      // killed), rank 0 says what it heard; mpirun takes a second to end it, moebius-processes two.
      const int wait_ms = !speaks ? 1600 : process->rank() == 0 || IsAgreed(status) ? 0 : 100;
      std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
      if (speaks || process->rank() == 0) LogLine(Concat("error: ", std::string(status.message())));
      std::fflush(nullptr);
      process->Exit(ExitCode(status) == 0 ? kExitInternal : ExitCode(status));
    }
    HostTalk talk(*world);
    RETURN_IF_ERROR(world->Close(talk.stream()));
  }
  process->Finalize();
  // One rank speaks for all.
  if (!status.ok() && process->rank() != 0) std::exit(ExitCode(status));
  return status;
}

}  // namespace

absl::Status RefuseOnAllRanks(const RankOptions& options, const absl::Status& status) {
  if (!ProcessJob::Launched()) return status;
  return RunAsRanks(options, [&](Rank& rank) { return HostTalk(rank.world).Agree(status); });
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
