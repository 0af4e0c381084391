// A schedule as a text that people write, read and keep:
//
//   # 1F1B on two ranks
//   schedule mine
//   ranks 2
//   stages 2
//   microbatches 3
//   holders 0 1
//   0: F0.0 F0.1 B0.0 F0.2 B0.1 B0.2
//   1: F1.0 B1.0 F1.1 B1.1 F1.2 B1.2
//
// `holders` is the rank of every stage, two lines when microbatches enter from both ends; one line a rank
// holds its actions in the form of ToText(Action). Blank lines and # to the end of a line are left out.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

inline constexpr size_t kMaxScheduleTextBytes = size_t{64} << 20;

// FromText(ToText(schedule)) is `schedule`. Its name must be one that FromText takes: 1 to 64 letters,
// digits,
// '_', '-' and '.'.
std::string ToText(const Schedule& schedule);

// UsageError "SOURCE: line 7, column 12: expected WHAT, found \"...\""; `source` is mostly a path. Safe on
// any bytes. Checks the form and the ranges of all numbers; whether the schedule runs is Validate's question.
absl::StatusOr<Schedule> ScheduleFromText(std::string_view text, const std::string& source);

}  // namespace moebius
