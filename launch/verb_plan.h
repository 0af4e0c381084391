// `moebius plan`: a layout on paper, before anything starts.
#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

std::vector<Verb> PlanVerbs();

}  // namespace moebius
