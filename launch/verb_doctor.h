#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius doctor`: what this machine has, what is missing and how to get it.
std::vector<Verb> DoctorVerbs();

}  // namespace moebius
