// Runs the HDF5 library on a file of unknown origin in a child process. Internal to core/io.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace moebius {

// Forks, runs `body` in the child under limits of processor time and memory, and returns the text or the
// error that it gave; DamagedError when the child crashed or ran into a limit. The child does nothing but
// `body` and calls no exit handlers, so the parent may have threads and GPU contexts as long as `body`
// touches neither. `path` and `file_bytes` are for messages and limits.
absl::StatusOr<std::string> RunHdf5Child(const std::string& path, int64_t file_bytes,
                                         const std::function<absl::StatusOr<std::string>()>& body);

}  // namespace moebius
