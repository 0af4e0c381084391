// Landlock: the kernel's own file and signal rules for one process tree, as a second wall behind the slot's
// mounts.
#pragma once

namespace moebius::sandbox {

// Version of the kernel's interface, 0 where there is none.
int LandlockVersion();

// The calling process and its children may read and execute everything that they see and write only under
// /box, /tmp, /dev and /proc; from version 4 no TCP, from 6 no signals and abstract sockets out of the slot.
// Needs no_new_privs. False with errno.
bool RestrictWithLandlock(int version);

}  // namespace moebius::sandbox
