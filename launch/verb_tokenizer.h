#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius tokenizer train`, `moebius tokenizer encode` and `moebius tokenizer decode`.
std::vector<Verb> TokenizerVerbs();

}  // namespace moebius
