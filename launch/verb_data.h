#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius data build`: text to tokenizer and token files (data/build.h); `moebius data text`: and back.
std::vector<Verb> DataVerbs();

}  // namespace moebius
