#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius chat MODEL`.
std::vector<Verb> ChatVerbs();

}  // namespace moebius
