#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius generate MODEL --prompt TEXT` and `--batch FILE.jsonl`.
std::vector<Verb> GenerateVerbs();

}  // namespace moebius
