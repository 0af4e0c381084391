#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius eval MODEL TASK...`.
std::vector<Verb> EvalVerbs();

}  // namespace moebius
