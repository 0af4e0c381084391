// Charts that a run of any task may have.
#pragma once

#include <string>

#include "launch/report/lines.h"

namespace moebius {

std::string LossCharts(const Runs& runs);
std::string OptimizerCharts(const Runs& runs);
std::string SpeedCharts(const Runs& runs);
// Load of experts, with its heat maps.
std::string ExpertCharts(const Runs& runs);

}  // namespace moebius
