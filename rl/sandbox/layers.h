// Which walls this machine offers. A printable value: found once, carried by every slot, shown by `sandbox
// check`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace moebius::sandbox {

struct Layers {
  bool root = false;           // slots get user ids of their own
  bool namespaces = true;      // mount, pid, net, ipc, uts, cgroup; found by starting a slot
  bool user_namespace = true;  // without it only root can make the others
  bool seccomp = true;
  bool landlock = true;
  bool cgroups = true;
};

// Takes layers away by name ("namespaces", "user_namespace", "seccomp", "landlock", "cgroups"), as if the
// machine did not offer them. UsageError for another name.
absl::Status TakeAway(const std::vector<std::string>& names, Layers* layers);

// The layers of this machine, as far as they can be told without starting a slot.
Layers FindLayers();

}  // namespace moebius::sandbox
