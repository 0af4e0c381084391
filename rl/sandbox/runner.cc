#include "rl/sandbox/runner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <sstream>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/sandbox/landlock.h"
#include "rl/sandbox/runner_wire.h"
#include "rl/sandbox/seccomp_filter.h"

namespace moebius::sandbox {
namespace {

struct Running {
  int slot = 0;
  FileDescriptor control;
  SlotCgroup cgroup;
};

class RunnerProcess {
 public:
  RunnerProcess(SlotContext context, int slots, FileDescriptor socket, pid_t parent)
      : context_(std::move(context)), slots_(slots), socket_(std::move(socket)), parent_(parent) {}

  void Run() {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    sigprocmask(SIG_SETMASK, &watched, nullptr);
    const FileDescriptor signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
    // A signal and not a kill, so that the control groups are removed too. From others it is ignored.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (bool open = true; open && getppid() == parent_;) {
      pollfd fds[] = {{socket_.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) break;
      if (fds[1].revents & POLLIN) {
        signalfd_siginfo info;
        while (read(signals.get(), &info, sizeof info) > 0) {
        }
        Reap();
      }
      if (fds[0].revents & (POLLIN | POLLHUP)) {
        SlotRequest request;
        const Received received = ReceiveRequest(socket_.get(), &request);
        if (received == Received::kRequest) waiting_.push_back(std::move(request));
        open = received != Received::kEnd;
      }
      while (!waiting_.empty() && static_cast<int>(running_.size()) < slots_) {
        Begin(std::move(waiting_.front()));
        waiting_.pop_front();
      }
    }
    for (const auto& [pid, slot] : running_) kill(pid, SIGKILL);
    waiting_for_all_ = true;
    Reap();
  }

 private:
  const std::vector<sock_filter>& Filter(int memory_mb) {
    auto [entry, added] = filters_.try_emplace(memory_mb);
    if (added && context_.layers.seccomp) {
      absl::StatusOr<std::vector<sock_filter>> filter = BuildSeccompFilter(memory_mb * int64_t{1 << 20});
      if (filter.ok()) entry->second = *std::move(filter);
    }
    return entry->second;
  }

  int FreeSlot() const {
    for (int slot = 0;; ++slot) {
      bool taken = false;
      for (const auto& [pid, running] : running_) taken |= running.slot == slot;
      if (!taken) return slot;
    }
  }

  void Begin(SlotRequest request) {
    Running running;
    running.slot = FreeSlot();
    if (context_.layers.cgroups)
      running.cgroup = context_.cgroups.Make(CgroupName(getpid(), running.slot), request.limits);
    const pid_t pid =
        StartSlot(context_, request, running.cgroup, Filter(request.limits.memory_mb), running.slot);
    running.control = std::move(request.control);
    if (pid > 0) {
      running_.emplace(pid, std::move(running));
    } else {
      SlotReport report;
      std::strncpy(report.error, std::strerror(errno), sizeof report.error - 1);
      send(running.control.get(), &report, sizeof report, MSG_NOSIGNAL);
      running.cgroup.Remove();
    }
  }

  void Reap() {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, waiting_for_all_ ? 0 : WNOHANG)) > 0) {
      const auto found = running_.find(pid);
      if (found == running_.end()) continue;
      const CgroupUse use = found->second.cgroup.Use();
      SlotReport report;
      report.kind = SlotReport::kGone;
      report.wait_status = status;
      report.mem = use.killed_for_memory;
      report.procs = use.refused_processes;
      report.memory_kb = use.peak_memory_kb;
      report.left_behind = !found->second.cgroup.Remove();
      send(found->second.control.get(), &report, sizeof report, MSG_NOSIGNAL);
      running_.erase(found);
    }
  }

  const SlotContext context_;
  const int slots_;
  const FileDescriptor socket_;
  const pid_t parent_;
  std::deque<SlotRequest> waiting_;
  std::map<pid_t, Running> running_;
  std::map<int, std::vector<sock_filter>> filters_;
  bool waiting_for_all_ = false;
};

// Wipes the words of the command line and the environment, which /proc shows to the slots and which may hold
// secrets.
void WipeOwnWords() {
  const absl::StatusOr<std::string> text = ReadFile("/proc/self/stat", 1 << 16);
  if (!text.ok()) return;
  // Fields 48 to 51 of proc(5), counted from field 3 after the name.
  std::istringstream fields(text->substr(text->rfind(')') + 1));
  std::string skipped;
  for (int field = 3; field < 48; ++field) fields >> skipped;
  uintptr_t words, words_end, environment, environment_end;
  if (!(fields >> words >> words_end >> environment >> environment_end)) return;
  clearenv();
  if (words != 0 && words_end > words) std::memset(reinterpret_cast<void*>(words), 0, words_end - words);
  if (environment != 0 && environment_end > environment)
    std::memset(reinterpret_cast<void*>(environment), 0, environment_end - environment);
}

// In the new process: nothing of the parent's but the socket and standard error.
void EnterRunner(int socket) {
  setsid();
  for (const int signal : {SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE}) ::signal(signal, SIG_IGN);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(null, 0);
  dup2(null, 1);
  dup2(socket, 3);
  syscall(SYS_close_range, 4u, ~0u, 0);
  fcntl(3, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_NAME, "moebius-sandbox");
  WipeOwnWords();
}

// Different for runners that live at the same time.
uid_t FirstUid(pid_t runner) {
  return kFirstSlotId + static_cast<uid_t>(runner % kMostRunners) * kIdsOfARunner;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runner>> Runner::Start(const RunnerOptions& options) {
  std::unique_ptr<Runner> runner(new Runner);
  runner->slots_ = options.slots;
  runner->free_.emplace(options.slots);
  SlotContext context;
  context.layers = FindLayers();
  RETURN_IF_ERROR(TakeAway(options.without, &context.layers));
  if (context.layers.cgroups) context.cgroups = Cgroups::Find();
  context.layers.cgroups = context.cgroups.usable();
  context.cgroups.SweepStale();
  context.landlock_version = context.layers.landlock ? LandlockVersion() : 0;
  if (absl::StatusOr<std::string> cache = ReadFile("/etc/ld.so.cache", 1 << 24); cache.ok())
    context.ld_cache = *std::move(cache);

  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return UnavailableError(
        Concat("cannot start the sandbox's runner; ", std::strerror(errno), "; free descriptors"));
  runner->socket_ = FileDescriptor(pair[0]);
  FileDescriptor other(pair[1]);
  runner->layers_ = context.layers;
  runner->cgroup_version_ = context.cgroups.version();
  runner->landlock_version_ = context.landlock_version;
  // Each slot takes a dozen descriptors here while it runs.
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = std::max(files.rlim_cur, std::min<rlim_t>(files.rlim_max, 65536));
    setrlimit(RLIMIT_NOFILE, &files);
  }
  const pid_t parent = getpid();
  runner->pid_ = fork();
  if (runner->pid_ < 0)
    return UnavailableError(
        Concat("cannot start the sandbox's runner; ", std::strerror(errno), "; free processes"));
  if (runner->pid_ == 0) {
    EnterRunner(other.Release());
    context.first_uid = FirstUid(getpid());
    RunnerProcess(std::move(context), options.slots, FileDescriptor(3), parent).Run();
    _exit(0);
  }
  return runner;
}

Runner::~Runner() {
  socket_ = FileDescriptor();
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

absl::Status Runner::Request(const SlotRequest& request) {
  absl::Status sent;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    sent = SendRequest(socket_.get(), request);
  }
  if (ExitCode(sent) == kExitUnavailable) LookWhetherGone();
  return sent;
}

void Runner::LookWhetherGone() {
  // Its descriptors close a little before it has ended.
  for (int wait = 0; wait < 100 && !gone_; ++wait) {
    siginfo_t info = {};
    if (waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == pid_) gone_ = true;
    if (!gone_) usleep(10000);
  }
}

absl::Status Runner::status() const {
  if (!gone_) return absl::OkStatus();
  return UnavailableError(Concat(
      "the sandbox's runner (process ", pid_,
      ") is gone, so no program can be judged any more; who killed it, or was there too little memory? "
      "run the same command again"));
}

}  // namespace moebius::sandbox
