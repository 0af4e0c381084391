// A policy that stays as it is: the reference of KL terms and preferences.
#pragma once

#include <memory>
#include <string>

#include "optim/trainer.h"

namespace moebius {

// Collective. The weights of `folder` (a checkpoint or a Hugging Face folder of the trained model's config),
// as one stage on every rank, for sequences of up to `max_positions`.
absl::StatusOr<std::unique_ptr<Model>> LoadReference(Trainer& trainer, const std::string& folder,
                                                     int64_t max_positions);

}  // namespace moebius
