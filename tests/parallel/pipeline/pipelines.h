// Shared by the tests of parallel/pipeline: generate and simulate or fail.
#pragma once

#include <string>

#include "parallel/pipeline/generate.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {

// ADD_FAILURE with the error and an empty schedule when the spec is refused.
Schedule Generate(const std::string& name, int ranks, int microbatches, int chunks = 2);
// The same for Simulate.
Simulation Simulated(const Schedule& schedule, const PipelineCosts& costs = {});

// Equal stages; overlapped_pair < 0 is the sum of the parts.
PipelineCosts Equal(double forward, double backward_input, double backward_weight,
                    double overlapped_pair = -1);

// The actions of a rank as text, in one string.
std::string Line(const Schedule& schedule, int rank);

}  // namespace moebius
