#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius score MODEL --tokens FILE.jsonl`.
std::vector<Verb> ScoreVerbs();

}  // namespace moebius
