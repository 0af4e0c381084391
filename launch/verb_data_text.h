#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius data text FILE.h5`: the text that a token file stands for.
std::vector<Verb> DataTextVerbs();

}  // namespace moebius
