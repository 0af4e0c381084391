// A model of one stage out of a trainer of any layout: for sampling, which runs on one rank.
#pragma once

#include <memory>

#include "optim/trainer.h"

namespace moebius {

// Collective. On rank 0 a model without MTP modules that holds the current weights in the compute dtype, at
// `max_positions`; null on the others.
absl::StatusOr<std::unique_ptr<Model>> GatherWholeModel(Trainer& trainer, const ModelOptions& options);

}  // namespace moebius
