// The knobs of procedural sets by name: --knob sort_length=3.
#pragma once

#include <string>
#include <vector>

#include "core/base/status.h"
#include "rl/tasks/task.h"

namespace moebius {

std::vector<std::string> TaskKnobNames();

// Sets what "NAME=VALUE" says. UsageError naming the nearest knob, or for a value that is no number (of a
// switch: true or false). Ranges are checked by MakeTask.
absl::Status SetTaskKnob(const std::string& assignment, TaskOptions& options);

}  // namespace moebius
