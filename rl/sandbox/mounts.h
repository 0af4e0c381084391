// The file system of a slot: a read-only root in memory with the system's /usr, a small /dev and /etc, a
// /proc of the slot's own processes, the program in /prog, and one sized memory file system behind /box, /tmp
// and /dev/shm.
#pragma once

#include <string>

#include "rl/sandbox/slot.h"

namespace moebius::sandbox {

// In the slot's first process, with its own mount namespace and the right to mount. Afterwards "/" is the new
// root and nothing of the old one can be reached. "" or what failed.
std::string BuildRoot(const SlotRequest& request, const SlotContext& context, uid_t program_uid);

// Without namespaces (unsafe): the program and its folder in a new temporary folder, which becomes the
// current one.
// "" or what failed; *folder is the path to remove.
std::string BuildPlainFolder(const SlotRequest& request, uid_t program_uid, bool root, std::string* folder);

}  // namespace moebius::sandbox
