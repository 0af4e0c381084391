#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius train RECIPE`.
std::vector<Verb> TrainVerbs();

}  // namespace moebius
