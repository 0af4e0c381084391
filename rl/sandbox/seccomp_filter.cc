#include "rl/sandbox/seccomp_filter.h"

#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius::sandbox {
namespace {

// Files, memory, time, signals, threads and pipes of the program itself.
constexpr const char* kAllowed[] = {"_sysctl",
                                    "access",
                                    "alarm",
                                    "arch_prctl",
                                    "brk",
                                    "capget",
                                    "chdir",
                                    "clock_getres",
                                    "clock_gettime",
                                    "clock_nanosleep",
                                    "close",
                                    "close_range",
                                    "copy_file_range",
                                    "dup",
                                    "dup2",
                                    "dup3",
                                    "epoll_create",
                                    "epoll_create1",
                                    "epoll_ctl",
                                    "epoll_pwait",
                                    "epoll_pwait2",
                                    "epoll_wait",
                                    "eventfd",
                                    "eventfd2",
                                    "execve",
                                    "execveat",
                                    "exit",
                                    "exit_group",
                                    "fork",
                                    "vfork",
                                    "faccessat",
                                    "faccessat2",
                                    "fadvise64",
                                    "fallocate",
                                    "fchdir",
                                    "fchmod",
                                    "fcntl",
                                    "fdatasync",
                                    "fgetxattr",
                                    "flistxattr",
                                    "flock",
                                    "fstat",
                                    "fstatfs",
                                    "fsync",
                                    "ftruncate",
                                    "futex",
                                    "futex_waitv",
                                    "getcpu",
                                    "getcwd",
                                    "getdents",
                                    "getdents64",
                                    "getegid",
                                    "geteuid",
                                    "getgid",
                                    "getgroups",
                                    "getitimer",
                                    "getpeername",
                                    "getpgid",
                                    "getpgrp",
                                    "getpid",
                                    "getppid",
                                    "getpriority",
                                    "getrandom",
                                    "getresgid",
                                    "getresuid",
                                    "getrlimit",
                                    "getrusage",
                                    "getsid",
                                    "getsockname",
                                    "getsockopt",
                                    "gettid",
                                    "gettimeofday",
                                    "getuid",
                                    "getxattr",
                                    "inotify_add_watch",
                                    "inotify_init",
                                    "inotify_init1",
                                    "inotify_rm_watch",
                                    "lgetxattr",
                                    "listxattr",
                                    "llistxattr",
                                    "lseek",
                                    "lstat",
                                    "madvise",
                                    "membarrier",
                                    "mincore",
                                    "mlock",
                                    "mlock2",
                                    "mlockall",
                                    "mprotect",
                                    "msync",
                                    "munlock",
                                    "munlockall",
                                    "munmap",
                                    "nanosleep",
                                    "newfstatat",
                                    "pause",
                                    "pipe",
                                    "pipe2",
                                    "pkey_alloc",
                                    "pkey_free",
                                    "pkey_mprotect",
                                    "poll",
                                    "ppoll",
                                    "pread64",
                                    "preadv",
                                    "preadv2",
                                    "pselect6",
                                    "pwrite64",
                                    "pwritev",
                                    "pwritev2",
                                    "read",
                                    "readahead",
                                    "readlink",
                                    "readlinkat",
                                    "readv",
                                    "recvfrom",
                                    "recvmmsg",
                                    "recvmsg",
                                    "remap_file_pages",
                                    "restart_syscall",
                                    "rseq",
                                    "rt_sigaction",
                                    "rt_sigpending",
                                    "rt_sigprocmask",
                                    "rt_sigreturn",
                                    "rt_sigsuspend",
                                    "rt_sigtimedwait",
                                    "sched_get_priority_max",
                                    "sched_get_priority_min",
                                    "sched_getaffinity",
                                    "sched_getattr",
                                    "sched_getparam",
                                    "sched_getscheduler",
                                    "sched_rr_get_interval",
                                    "sched_yield",
                                    "select",
                                    "sendfile",
                                    "sendmmsg",
                                    "sendmsg",
                                    "sendto",
                                    "set_robust_list",
                                    "get_robust_list",
                                    "set_tid_address",
                                    "setitimer",
                                    "setpgid",
                                    "setrlimit",
                                    "setsid",
                                    "setsockopt",
                                    "shutdown",
                                    "sigaltstack",
                                    "signalfd",
                                    "signalfd4",
                                    "splice",
                                    "stat",
                                    "statfs",
                                    "statx",
                                    "sync_file_range",
                                    "sysinfo",
                                    "tee",
                                    "time",
                                    "timer_create",
                                    "timer_delete",
                                    "timer_getoverrun",
                                    "timer_gettime",
                                    "timer_settime",
                                    "timerfd_create",
                                    "timerfd_gettime",
                                    "timerfd_settime",
                                    "times",
                                    "umask",
                                    "uname",
                                    "ustat",
                                    "vmsplice",
                                    "wait4",
                                    "waitid",
                                    "write",
                                    "writev"};

// Refused without a word, because libraries try them and go on.
struct Quiet {
  const char* name;
  int error;
};
constexpr Quiet kQuiet[] = {
    {"clone3", ENOSYS},
    {"openat2", ENOSYS},
    {"mbind", ENOSYS},
    {"get_mempolicy", ENOSYS},
    {"set_mempolicy", ENOSYS},
    {"setxattr", ENOTSUP},
    {"lsetxattr", ENOTSUP},
    {"fsetxattr", ENOTSUP},
    {"removexattr", ENOTSUP},
    {"lremovexattr", ENOTSUP},
    {"fremovexattr", ENOTSUP},
    // Flushing the whole machine's disks is nothing a program in its own memory file system needs.
    {"sync", 0},
    {"syncfs", 0}};

constexpr uint64_t kNamespaceFlags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                     CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | 0x80 /* CLONE_NEWTIME */;

class Rules {
 public:
  explicit Rules(scmp_filter_ctx context) : context_(context) {}

  // Names that the library does not know yet are left to the default, which refuses.
  template <typename... Args>
  void Add(uint32_t action, const char* name, Args... args) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number < 0 || error_ != 0) return;
    const scmp_arg_cmp array[] = {args..., scmp_arg_cmp{}};
    error_ = seccomp_rule_add_array(context_, action, number, sizeof...(args), array);
  }
  int error() const { return error_; }

 private:
  scmp_filter_ctx context_;
  int error_ = 0;
};

scmp_arg_cmp Arg(unsigned index, scmp_compare compare, uint64_t a, uint64_t b = 0) {
  return {index, compare, a, b};
}

void AddConditional(Rules& rules, uint64_t big_map_bytes) {
  // Only for the process itself: in a slot of an ordinary user the init has the same user id.
  for (const char* name :
       {"prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"})
    rules.Add(SCMP_ACT_ALLOW, name, Arg(0, SCMP_CMP_EQ, 0));
  rules.Add(SCMP_ACT_ALLOW, "setpriority", Arg(1, SCMP_CMP_EQ, 0));
  rules.Add(SCMP_ACT_ALLOW, "socketpair", Arg(0, SCMP_CMP_EQ, AF_UNIX));
  // New processes are counted by the kernel (rlimit, control group) and the watcher: the init is not asked,
  // because a signal that comes while a call waits for it would make fork fail with EINTR. The C library
  // blocks signals while it makes a thread, so those are shown to the init, which can tell at which one the
  // limit was.
  rules.Add(SCMP_ACT_ALLOW, "clone", Arg(0, SCMP_CMP_MASKED_EQ, kNamespaceFlags | CLONE_THREAD, 0));
  // Common requests go straight through; the init decides about the others (as about kill, clone and prctl).
  for (const int request : {TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX})
    rules.Add(SCMP_ACT_ALLOW, "ioctl", Arg(1, SCMP_CMP_EQ, static_cast<uint64_t>(request)));
  rules.Add(SCMP_ACT_ALLOW, "personality", Arg(0, SCMP_CMP_EQ, 0xFFFFFFFFu));
  rules.Add(SCMP_ACT_ALLOW, "personality", Arg(0, SCMP_CMP_EQ, 0));
  for (const char* name : {"mmap", "mremap"}) {
    const unsigned length = name[1] == 'm' ? 1 : 2;
    rules.Add(SCMP_ACT_ALLOW, name, Arg(length, SCMP_CMP_LE, big_map_bytes));
  }
}

}  // namespace

absl::StatusOr<std::vector<sock_filter>> BuildSeccompFilter(int64_t big_map_bytes) {
  const auto failed = [](int error) {
    return UnavailableError(Concat("cannot build the system call filter; libseccomp says ", -error,
                                   "; use libseccomp 2.5 or newer"));
  };
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> context(seccomp_init(SCMP_ACT_NOTIFY),
                                                                 seccomp_release);
  if (context == nullptr) return failed(0);
  seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  Rules rules(context.get());
  for (const char* name : kAllowed) rules.Add(SCMP_ACT_ALLOW, name);
  for (const Quiet& quiet : kQuiet) rules.Add(SCMP_ACT_ERRNO(quiet.error), quiet.name);
  AddConditional(rules, static_cast<uint64_t>(big_map_bytes));
  if (rules.error() != 0) return failed(rules.error());

  const int fd = memfd_create("filter", MFD_CLOEXEC);
  if (fd < 0) return failed(-errno);
  std::vector<sock_filter> filter;
  int error = seccomp_export_bpf(context.get(), fd);
  if (error == 0) {
    const off_t size = lseek(fd, 0, SEEK_END);
    filter.resize(size / sizeof(sock_filter));
    if (pread(fd, filter.data(), size, 0) != size) error = -EIO;
  }
  close(fd);
  if (error != 0) return failed(error);
  return filter;
}

int LoadSeccompFilter(const std::vector<sock_filter>& filter) {
  const sock_fprog program = {.len = static_cast<unsigned short>(filter.size()),
                              .filter = const_cast<sock_filter*>(filter.data())};
  // Since 5.19: a call that the init has begun to answer waits for the answer, whatever signal comes.
  constexpr unsigned kWaitKillable = 1 << 5;
  for (const unsigned extra : {kWaitKillable, 0u}) {
    const long fd =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | extra, &program);
    if (fd >= 0 || errno != EINVAL) return static_cast<int>(fd);
  }
  return -1;
}

}  // namespace moebius::sandbox
