// What a run will take, before it is started.
#pragma once

#include <string>

#include "core/backend/backend.h"
#include "launch/recipe.h"

namespace moebius {

struct ModelConfig;

// What --dry-run prints: parameters, FLOPs, memory and time expected (from this machine's measured product
// peak, in FLOP/s; 0 for not known).
std::string DescribePlan(const proto::Recipe& recipe, const ModelConfig& config, const Backend& backend,
                         double peak_flops);

}  // namespace moebius
