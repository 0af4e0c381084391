#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius bench` (this machine's limits, products, one model's training step), `moebius bench kernels` and
// `moebius bench train RECIPE`.
std::vector<Verb> BenchVerbs();

}  // namespace moebius
