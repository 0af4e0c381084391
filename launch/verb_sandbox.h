#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius sandbox run --lang L --tests T.json FILE`, `sandbox run --batch FILE.jsonl`, `sandbox check`.
std::vector<Verb> SandboxVerbs();

}  // namespace moebius
