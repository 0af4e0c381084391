#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "launch/cli.h"

namespace moebius {

// `moebius inspect PATH`: what is in a checkpoint, token file or run. Each kind is a (test, print) pair in
// verb_inspect.cc; the first whose test says yes prints.
std::vector<Verb> InspectVerbs();

}  // namespace moebius
