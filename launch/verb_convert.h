#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius import` and `moebius export`: Hugging Face folders to ours and back.
std::vector<Verb> ConvertVerbs();

}  // namespace moebius
