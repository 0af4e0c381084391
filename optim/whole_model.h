// A model of one stage out of a trainer of any layout: for sampling.
#pragma once

#include <memory>

#include "optim/trainer.h"

namespace moebius {

enum class WholeModelOn { kRank0, kEveryRank };

// Collective. A model that holds the current weights in the compute dtype, at `max_positions`; with MTP
// modules where options.mtp asks for them. Null on ranks that get none.
absl::StatusOr<std::unique_ptr<Model>> GatherWholeModel(Trainer& trainer, const ModelOptions& options,
                                                        WholeModelOn where = WholeModelOn::kRank0);

}  // namespace moebius
