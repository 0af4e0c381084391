// The knobs of procedural sets by name: --knob sort_length=3.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "rl/tasks/task.h"

namespace moebius {

std::vector<std::string> TaskKnobNames();

// Of a benchmark that has knobs: "sort", "add", ...
bool IsTask(const std::string& benchmark);

// Sets what "NAME=VALUE" says. UsageError naming the nearest knob, for one that none of `benchmarks` reads,
// or for a value that is no number (of a switch: true or false). Ranges are checked by MakeTask.
absl::Status SetTaskKnob(const std::string& assignment, const std::vector<std::string>& benchmarks,
                         TaskOptions& options);

// {"seed": 0, "sort_length": 5}: all that `task` reads; empty for a benchmark that has none.
nlohmann::ordered_json TaskKnobs(const std::string& task, const TaskOptions& options);

}  // namespace moebius
