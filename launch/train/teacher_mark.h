// A run that goes on must go on with the teacher that it began with: `latest` of another run may have moved.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace moebius {

// Notes in `run_folder` (teacher.sha256) which weights lie in `teacher`: by the manifest of a checkpoint,
// else by config.json and the names and sizes of files. UsageError where a run that has a checkpoint began
// with others.
absl::Status MarkTeacher(const std::string& run_folder, const std::string& teacher);

}  // namespace moebius
