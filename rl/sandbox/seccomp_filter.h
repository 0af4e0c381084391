// The system calls that a program in a slot may make, as a BPF program. An allow-list: what is not on it is
// handed to the slot's init (notify.h), which refuses it and remembers that it was tried. Calls of other
// architectures end the process.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace moebius::sandbox {

// Mappings of more than `big_map_bytes` are shown to the init too. UnavailableError when the library refuses.
absl::StatusOr<std::vector<sock_filter>> BuildSeccompFilter(int64_t big_map_bytes);

// Loads it into the calling process, which must have no_new_privs set. The descriptor on which refused and
// reported calls arrive, or -1 with errno.
int LoadSeccompFilter(const std::vector<sock_filter>& filter);

}  // namespace moebius::sandbox
