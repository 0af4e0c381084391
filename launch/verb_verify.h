// moebius verify: does every layout and schedule compute what one rank computes, on this machine, for a model
// with the features of the recipe's.
#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

std::vector<Verb> VerifyVerbs();

}  // namespace moebius
