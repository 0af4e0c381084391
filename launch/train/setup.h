// Builds what a rank of a training run holds. Nothing here starts a step.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/backend/backend.h"
#include "launch/recipe.h"
#include "optim/trainer.h"

namespace moebius {

// Everything that a training process holds.
struct Training {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Trainer> trainer;
};

// Collective. Builds backend and trainer of a rank with `threads` compute threads (0: the cores it may use);
// weights are undefined until InitializeWeights or LoadCheckpoint.
absl::StatusOr<Training> BuildTraining(const proto::Recipe& recipe, const ModelConfig& config, World& world,
                                       int threads);
// Step 0: from init.from, or random from the seed.
absl::Status InitializeWeights(const proto::Recipe& recipe, Training& training);

// Collective. kUnavailable, which all ranks return, where precision.compute AUTO means another type on one.
absl::Status AgreeOnCompute(World& world, DType act);

}  // namespace moebius
