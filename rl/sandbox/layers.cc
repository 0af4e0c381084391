#include "rl/sandbox/layers.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "rl/sandbox/landlock.h"
#include "rl/sandbox/slot.h"

namespace moebius::sandbox {
namespace {

// Tried in a child: the answers of /proc and of the kernel's settings differ from what is then allowed.
bool CanUnshare(int flags) {
  const pid_t child = fork();
  if (child == 0) _exit(unshare(flags) == 0 ? 0 : 1);
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Whether this namespace has the ids that root gives to slots: in a container without root of its own there
// are few.
bool HasSlotIds(const char* map) {
  const absl::StatusOr<std::string> text = ReadFile(map, 1 << 16);
  if (!text.ok()) return false;
  std::istringstream lines(*text);
  for (uint64_t inside, outside, count; lines >> inside >> outside >> count;) {
    if (inside <= kFirstSlotId && inside + count >= kLastSlotId) return true;
  }
  return false;
}

constexpr int kNamespaces =
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

}  // namespace

absl::Status TakeAway(const std::vector<std::string>& names, Layers* layers) {
  for (const std::string& name : names) {
    if (name == "namespaces") {
      layers->namespaces = layers->user_namespace = false;
    } else if (name == "user_namespace") {
      layers->user_namespace = false;
      if (!layers->root) layers->namespaces = false;
    } else if (name == "seccomp") {
      layers->seccomp = false;
    } else if (name == "landlock") {
      layers->landlock = false;
    } else if (name == "cgroups") {
      layers->cgroups = false;
    } else {
      return UsageError(
          Concat("unknown layer '", Printable(name),
                 "'; the layers are namespaces, user_namespace, seccomp, landlock and cgroups; name one "
                 "of them"));
    }
  }
  return absl::OkStatus();
}

Layers FindLayers() {
  Layers layers;
  layers.root = geteuid() == 0 && HasSlotIds("/proc/self/uid_map") && HasSlotIds("/proc/self/gid_map");
  layers.user_namespace = CanUnshare(CLONE_NEWUSER | kNamespaces);
  layers.namespaces = layers.user_namespace || (layers.root && CanUnshare(kNamespaces));
  layers.landlock = LandlockVersion() > 0;
  return layers;
}

}  // namespace moebius::sandbox
