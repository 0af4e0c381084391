// The clockwork of Simulate: ranks, links and reductions step by step. Internal to parallel/pipeline.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {

// How errors count an action's place: among all actions of its rank, or among the compute actions only, when
// these are all that the author of the schedule wrote.
enum class ErrorPositions { kCountAll, kCountCompute };

// [ranks][actions]: start and end of every action of a lowered schedule. Schedule and costs must have been
// checked. UsageError: a deadlock with the actions that wait for each other, or messages or reductions that
// two ranks post in different orders.
absl::StatusOr<std::vector<std::vector<Interval>>> RunTimes(const Schedule& schedule,
                                                            const PipelineCosts& costs,
                                                            ErrorPositions positions);

}  // namespace moebius
