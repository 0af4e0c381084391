#include "rl/sandbox/slot.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "core/base/strings.h"
#include "rl/sandbox/slot_init.h"

namespace moebius::sandbox {
namespace {

bool WriteProc(pid_t pid, const char* name, const std::string& text) {
  const FileDescriptor file(open(Concat("/proc/", pid, "/", name).c_str(), O_WRONLY | O_CLOEXEC));
  return file.get() >= 0 && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Root gives init and program an id of their own each; an ordinary user has only one to give.
bool MapIds(const SlotContext& context, pid_t pid, int slot) {
  if (!context.layers.user_namespace) return true;
  if (context.layers.root) {
    const uid_t program = OuterUid(context, slot);
    const std::string map = Concat("0 ", program - 1, " 1\n", kProgramUid, " ", program, " 1\n");
    return WriteProc(pid, "uid_map", map) && WriteProc(pid, "gid_map", map);
  }
  return WriteProc(pid, "setgroups", "deny") &&
         WriteProc(pid, "uid_map", Concat(kProgramUid, " ", geteuid(), " 1\n")) &&
         WriteProc(pid, "gid_map", Concat(kProgramUid, " ", getegid(), " 1\n"));
}

}  // namespace

pid_t StartSlot(const SlotContext& context, const SlotRequest& request, const SlotCgroup& cgroup,
                const std::vector<sock_filter>& filter, int slot) {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) return -1;
  const FileDescriptor ids_ready(ready[0]), go(ready[1]);
  unsigned long flags = SIGCHLD;
  if (context.layers.namespaces)
    flags |= CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  if (context.layers.user_namespace) flags |= CLONE_NEWUSER;
  // Like fork, with namespaces: the caller has one thread, so nothing can be left locked in the child.
  const auto pid = static_cast<pid_t>(syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr));
  if (pid == 0) {
    close(go.get());
    RunSlotInit(context, request, cgroup, filter, slot, ids_ready.get());
  }
  if (pid < 0) return -1;
  if (MapIds(context, pid, slot) && write(go.get(), "g", 1) == 1) return pid;
  const int error = errno;
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  errno = error;
  return -1;
}

}  // namespace moebius::sandbox
