#include "rl/sandbox/slot_init.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <string>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "rl/sandbox/mounts.h"
#include "rl/sandbox/notify.h"
#include "rl/sandbox/program_start.h"
#include "rl/sandbox/watch.h"

namespace moebius::sandbox {
namespace {

int64_t NowUs() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1000000} + time.tv_nsec / 1000;
}

class SlotInit {
 public:
  SlotInit(const SlotContext& context, const SlotRequest& request, const SlotCgroup& cgroup,
           const std::vector<sock_filter>& filter, int slot)
      : context_(context), request_(request), cgroup_(cgroup), filter_(filter), slot_(slot) {}

  // Everything from the first wall to the report.
  void Run(int ids_ready) {
    std::string error = Prepare(ids_ready);
    if (error.empty()) error = Launch();
    if (error.empty()) Supervise();
    Look();
    KillAll();
    if (error.empty()) error = StartError();
    if (error.empty()) FinalFacts();
    error.copy(report_.error, sizeof report_.error - 1);
    send(request_.control.get(), &report_, sizeof report_, MSG_NOSIGNAL);
  }

 private:
  std::string Prepare(int ids_ready) {
    char byte;
    if (read(ids_ready, &byte, 1) != 1) return kRunnerGone;
    own_ids_ = context_.layers.user_namespace && context_.layers.root;
    if (own_ids_ && (setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0)) return Failed("setresuid");
    // After the change of ids, which clears it.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return Failed("death signal");
    prctl(PR_SET_DUMPABLE, 0);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_SETMASK, &child, nullptr);
    children_ = FileDescriptor(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    if (children_.get() < 0) return Failed("signalfd");
    uid_ = context_.layers.user_namespace ? kProgramUid
           : context_.layers.root         ? OuterUid(context_, slot_)
                                          : geteuid();
    if (!context_.layers.namespaces) {
      prctl(PR_SET_CHILD_SUBREAPER, 1);
      return BuildPlainFolder(request_, uid_, context_.layers.root, &folder_);
    }
    if (sethostname("sandbox", 7) != 0) return Failed("sethostname");
    return BuildRoot(request_, context_, uid_);
  }

  std::string Launch() {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return Failed("socketpair");
    start_us_ = NowUs();
    program_ = StartProgram({.context = context_,
                             .request = request_,
                             .cgroup = cgroup_,
                             .filter = filter_,
                             .uid = uid_,
                             .change_uid = context_.layers.root,
                             .folder = folder_,
                             .socket = pair[1]});
    if (program_ < 0) return Failed("fork");
    prctl(PR_SET_DUMPABLE, 0);  // the program's change of ids may have set it on the memory it borrowed
    close(pair[1]);
    start_socket_ = FileDescriptor(pair[0]);
    if (!context_.layers.seccomp) return "";
    std::string error;
    const int listener = ReceiveListener(pair[0], &error);
    if (listener >= 0) notifier_.emplace(listener, request_.limits.processes);
    return listener >= 0 || !error.empty() ? error : "the program's process did not start";
  }

  // After the end of the program: why it never began, "" when it did.
  std::string StartError() {
    std::string error;
    ReceiveListener(start_socket_.get(), &error);
    return error;
  }

  void Supervise() {
    int listener = notifier_ ? notifier_->listener() : -1;
    for (bool running = true; running;) {
      // Its half closed is EndSlot of slot_run.cc.
      pollfd fds[] = {
          {request_.control.get(), POLLRDHUP, 0}, {children_.get(), POLLIN, 0}, {listener, POLLIN, 0}};
      poll(fds, 3, NextLookMs());
      if (fds[0].revents & (POLLRDHUP | POLLHUP | POLLERR)) return;  // nobody wants the answer any more
      if (fds[2].revents & POLLIN) notifier_->Answer();
      // The last process under the filter is on its way out, which takes milliseconds: not to be waited for
      // awake.
      if (fds[2].revents == POLLHUP) listener = -1;
      if (fds[1].revents & POLLIN) running = !Reap();
      if (NowUs() >= next_look_us_) Look();
      if (report_.mem || report_.cpu || report_.wall || report_.disk || report_.procs) return;
      if (notifier_ && notifier_->refused_thread()) return;
    }
  }

  // True when the program itself has ended.
  bool Reap() {
    signalfd_siginfo info;
    while (read(children_.get(), &info, sizeof info) > 0) {
    }
    bool ended = false;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != program_) continue;
      ended = true;
      report_.wait_status = status;
      report_.wall_us = NowUs() - start_us_;
    }
    return ended;
  }

  int NextLookMs() const {
    return static_cast<int>(std::max<int64_t>(0, next_look_us_ - NowUs() + 999) / 1000);
  }

  // On a machine with other work a program is not slower for it, up to three times the limit.
  int64_t WallUs(const Watch::Sample& sample) const {
    const auto limit = static_cast<int64_t>(request_.limits.wall_s * 1e6);
    return limit + std::min(sample.waited_us, (kMostWallFactor - 1) * limit);
  }

  // Measures, and chooses when to look again so that no limit can be passed by much before.
  void Look() {
    const Limits& limits = request_.limits;
    const int64_t memory_kb = limits.memory_mb * int64_t{1024};
    const bool guard_memory = !cgroup_.limits_memory();
    const Watch::Sample sample = watch_.Look(guard_memory ? memory_kb * 3 / 4 : INT64_MAX);
    report_.cpu_us = std::max(report_.cpu_us, sample.cpu_us);
    if (sample.memory_kb <= memory_kb || guard_memory)
      report_.memory_kb = std::max(report_.memory_kb, sample.memory_kb);
    const int64_t now = NowUs();
    const int64_t cpu_left = static_cast<int64_t>(limits.cpu_s * 1e6) - sample.cpu_us;
    const int64_t wall_left = WallUs(sample) - (now - start_us_);
    report_.cpu |= cpu_left < 0;
    report_.wall |= wall_left < 0;
    report_.mem |= guard_memory && sample.memory_kb > memory_kb;
    // The kernel lets one more than allowed live, so that it is seen here. A program that has ended was one
    // too.
    report_.procs |= sample.tasks + (report_.wall_us > 0 ? 1 : 0) > limits.processes;
    LookAtDisk();
    int64_t wait_us = std::min<int64_t>({20000, cpu_left / kMaxCores + 500, wall_left + 500});
    // Two processors fill about 4 GB/s, that is 4 kB a microsecond.
    if (sample.tasks > limits.processes / 2) wait_us = std::min<int64_t>(wait_us, 3000);
    if (guard_memory) wait_us = std::min(wait_us, (memory_kb - sample.memory_kb) / 4);
    next_look_us_ = now + std::max<int64_t>(wait_us, 1000);
  }

  void LookAtDisk() {
    struct statvfs disk;
    if (!folder_.empty() || statvfs("/box", &disk) != 0) return;
    report_.disk |= disk.f_bfree == 0 || disk.f_ffree == 0;
  }

  void KillAll() {
    if (context_.layers.namespaces) {
      kill(-1, SIGKILL);
      while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
      }
      return;
    }
    for (std::vector<pid_t> left = Descendants(); !left.empty(); left = Descendants()) {
      for (const pid_t pid : left) kill(pid, SIGKILL);
      while (waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      usleep(1000);
    }
  }

  void FinalFacts() {
    const Limits& limits = request_.limits;
    if (report_.wall_us == 0) report_.wall_us = NowUs() - start_us_;
    const Watch::Sample sample = watch_.Look(INT64_MAX);
    report_.cpu_us = std::max(report_.cpu_us, sample.cpu_us);
    report_.cpu |= report_.cpu_us > static_cast<int64_t>(limits.cpu_s * 1e6);
    report_.wall |= report_.wall_us > WallUs(sample);
    const int status = report_.wait_status;
    report_.cpu |= WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU;
    report_.disk |= WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ;
    report_.denied |= WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
    rusage children;
    getrusage(RUSAGE_CHILDREN, &children);
    report_.memory_kb = std::max<int64_t>(report_.memory_kb, children.ru_maxrss);
    if (notifier_) {
      report_.procs |= notifier_->refused_thread();
      report_.denied |= notifier_->denied();
      report_.asked_memory = notifier_->asked_memory();
    }
    if (request_.artifact.get() >= 0 && status == 0) CopyArtifact();
    if (!folder_.empty()) [[maybe_unused]]
      const absl::Status removed = RemoveTree(folder_);
  }

  // The program may have put anything under that name: only a regular file is taken, and no link followed.
  void CopyArtifact() {
    const std::string path = folder_ + "/box/" + request_.artifact_name;
    const FileDescriptor file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info;
    if (file.get() < 0 || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return;
    off_t at = 0;
    while (at < info.st_size && sendfile(request_.artifact.get(), file.get(), &at, info.st_size - at) > 0) {
    }
    if (at < info.st_size)
      Failed("cannot copy the compiler's result").copy(report_.error, sizeof report_.error - 1);
  }

  static std::string Failed(std::string_view what) { return Concat(what, ": ", std::strerror(errno)); }

  static constexpr int kMaxCores = 64;  // as many threads may use processor time at once between two looks

  const SlotContext& context_;
  const SlotRequest& request_;
  const SlotCgroup& cgroup_;
  const std::vector<sock_filter>& filter_;
  const int slot_;
  bool own_ids_ = false;
  uid_t uid_ = 0;
  std::string folder_;
  FileDescriptor children_, start_socket_;
  pid_t program_ = -1;
  int64_t start_us_ = 0, next_look_us_ = 0;
  std::optional<Notifier> notifier_;
  Watch watch_;
  SlotReport report_;
};

}  // namespace

uid_t OuterUid(const SlotContext& context, int slot) { return context.first_uid + 2 * slot + 1; }

void RunSlotInit(const SlotContext& context, const SlotRequest& request, const SlotCgroup& cgroup,
                 const std::vector<sock_filter>& filter, int slot, int ids_ready) {
  SlotInit(context, request, cgroup, filter, slot).Run(ids_ready);
  _exit(0);
}

}  // namespace moebius::sandbox
