#include "rl/sandbox/program_start.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/base/strings.h"
#include "rl/sandbox/canaries.h"
#include "rl/sandbox/landlock.h"
#include "rl/sandbox/seccomp_filter.h"

namespace moebius::sandbox {
namespace {

constexpr int kStartFailed = 127;

bool Limit(int resource, uint64_t soft, uint64_t hard) {
  const rlimit limit = {soft, hard};
  return setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0;
}

bool SetLimits(const ProgramStart& start) {
  const Limits& limits = start.request.limits;
  const bool own_uid = start.context.layers.root, own_count = own_uid || start.context.layers.user_namespace;
  const auto cpu =
      static_cast<uint64_t>(std::ceil(limits.cpu_s)) + 1;  // the init is sooner and counts all processes
  const uint64_t disk =
      limits.disk_mb * kMiB + 4096;  // the memory file system is full first; this stops sparse files
  const uint64_t stack = limits.memory_mb * kMiB / 2;
  bool done = Limit(RLIMIT_CPU, cpu, cpu + 1) && Limit(RLIMIT_FSIZE, disk, disk) &&
              Limit(RLIMIT_STACK, stack, stack) && Limit(RLIMIT_NOFILE, 256, 256) &&
              Limit(RLIMIT_MEMLOCK, 65536, 65536) && Limit(RLIMIT_MSGQUEUE, 0, 0) &&
              Limit(RLIMIT_SIGPENDING, 512, 512) && Limit(RLIMIT_RTPRIO, 0, 0);
  // 1, not 0: a core pattern that is a pipe is fed at 0 but not at 1.
  done = done && Limit(RLIMIT_CORE, 1, 1);
  // One more than allowed, which the init sees and ends the slot for. An ordinary user's init counts too;
  // without a user namespace everything of the user's would.
  const auto processes = static_cast<uint64_t>(limits.processes) + (own_uid ? 1 : 2);
  if (own_count) done = done && Limit(RLIMIT_NPROC, processes, processes);
  // The init looks every few milliseconds; between two looks no process gets further than this. Stacks of
  // threads are reserved whole.
  if (!start.cgroup.limits_memory()) {
    const uint64_t space =
        (int64_t{4} << 30) + 2 * limits.memory_mb * kMiB + std::min(limits.processes, 256) * stack;
    done = done && Limit(RLIMIT_AS, space, space);
  }
  return done;
}

bool DropCapabilities() {
  for (int capability = 0; capability < 64; ++capability)
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno == EINVAL) break;
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  return syscall(SYS_capset, &header, none) == 0;
}

std::string Failed(std::string_view what) { return Concat(what, ": ", std::strerror(errno)); }

std::string Rebase(const std::string& argument, const std::string& folder) {
  const bool inside = argument.rfind("/prog", 0) == 0 || argument.rfind("/box", 0) == 0;
  return inside ? folder + argument : argument;
}

void ResetSignals() {
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Descriptors 0 to 2 and 3; the one to send through stays on until it is sent.
bool ArrangeDescriptors(const SlotRequest& request, int* listener_socket) {
  // Above everything that is used, so that no target of the copies below is a source.
  const auto high = [](int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 100); };
  const int input = high(request.input.get()), output = high(request.output.get()),
            error = high(request.error.get());
  const int channel = request.channel.get() < 0 ? -1 : high(request.channel.get());
  *listener_socket = high(*listener_socket);
  if (input < 0 || output < 0 || error < 0 || *listener_socket < 0) return false;
  if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(error, 2) < 0) return false;
  close(3);
  if (channel >= 0 && dup2(channel, 3) < 0) return false;
  const unsigned keep = static_cast<unsigned>(*listener_socket);
  const unsigned first = channel >= 0 ? 4 : 3;
  return syscall(SYS_close_range, first, keep - 1, 0) == 0 && syscall(SYS_close_range, keep + 1, ~0u, 0) == 0;
}

bool SendDescriptor(int socket, int fd) {
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(socket, &message, MSG_NOSIGNAL) == 1;
}

// Returns only on failure, with what failed. *socket closes itself when the program runs.
std::string Start(const ProgramStart& start, int* socket) {
  for (const FileDescriptor& entrance : start.cgroup.entrances())
    if (write(entrance.get(), "0", 1) != 1) return Failed("enter the control group");
  if (setsid() < 0) return Failed("setsid");
  if (!ArrangeDescriptors(start.request, socket)) return Failed("descriptors");
  if (!SetLimits(start)) return Failed("setrlimit");
  if (start.change_uid && (setgroups(0, nullptr) != 0 && errno != EPERM)) return Failed("setgroups");
  if (start.change_uid &&
      (setresgid(start.uid, start.uid, start.uid) != 0 || setresuid(start.uid, start.uid, start.uid) != 0))
    return Failed("setresuid");
  if (!DropCapabilities()) return Failed("capset");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Failed("no_new_privs");
  umask(022);
  const std::string& folder = start.folder;
  if (chdir((folder + "/box").c_str()) != 0) return Failed("chdir /box");

  const std::string tmp = folder.empty() ? "TMPDIR=/tmp" : "TMPDIR=" + folder + "/box";
  const std::string home = "HOME=" + folder + "/box";
  // Of a random seed the order of a Python set, and a verdict with it, would be another one every time.
  const char* environment[] = {"PATH=/usr/bin:/bin", home.c_str(),       "LANG=C.UTF-8",
                               tmp.c_str(),          "PYTHONHASHSEED=0", nullptr};
  std::vector<std::string> arguments;
  for (const std::string& argument : start.request.argv) arguments.push_back(Rebase(argument, folder));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  if (start.context.layers.landlock && folder.empty() &&
      !RestrictWithLandlock(start.context.landlock_version))
    return Failed("landlock");
  ResetSignals();
  int listener = -1;
  if (start.context.layers.seccomp) {
    listener = LoadSeccompFilter(start.filter);
    if (listener < 0) return Failed("seccomp");
  }
  const bool sent = listener < 0 || SendDescriptor(*socket, listener);
  if (listener >= 0) close(listener);
  if (!sent) return Failed("send the listener");
  if (arguments[0].empty()) {
    close(*socket);
    RunCanaryProbe(start.request.argv);
  }
  execve(argv[0], argv.data(), const_cast<char**>(environment));
  // A compiled program that the kernel does not take is the program's fault, anything else ours.
  if (start.request.argv[0].rfind("/prog/", 0) == 0) _exit(kStartFailed);
  return Failed("execute " + arguments[0]);
}

}  // namespace

pid_t StartProgram(const ProgramStart& start) {
  // The probe runs in our own code and needs an init that answers meanwhile.
  const bool is_probe = start.request.argv[0].empty();
  const pid_t pid = is_probe ? fork() : vfork();
  if (pid != 0) return pid;
  int socket = start.socket;
  const std::string error = Start(start, &socket);
  send(socket, error.data(), error.size(), MSG_NOSIGNAL);
  _exit(kStartFailed);
}

int ReceiveListener(int socket, std::string* text) {
  char bytes[200];
  iovec data = {bytes, sizeof bytes};
  int fd = -1;
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof fd)];
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  const ssize_t length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (length <= 0) return -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  } else {
    text->assign(bytes, length);
  }
  return fd;
}

}  // namespace moebius::sandbox
