// How much memory a run will take, found out before its first step by running one on a device that only
// counts.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "launch/recipe.h"
#include "optim/trainer.h"
#include "parallel/layout.h"

namespace moebius {

// The peak of one rank that trains the whole model, in bytes: weights, gradients, moments, activations of the
// live microbatches, scratch; validation; a teacher or reference model; the caches of sampling and
// evaluation. Of texts of batch.sequence_length, of groups of prompts and answers as long as the recipe
// allows: shorter ones take less. What libraries keep for themselves comes on top, and PRETRAIN's `sample`.
// Seconds, whatever the model's size. UsageError for an `rl` that the model cannot run (CheckRl).
absl::StatusOr<int64_t> PredictPeakBytes(const proto::Recipe& recipe, const ModelConfig& config,
                                         const Backend& stands_for);

// What one of batch.sequences comes to at most: a text; a problem with a group of answers; a pair of answers.
int64_t MostTokens(const proto::Recipe& recipe);

// kUnavailable, with the numbers and what to change, where the run would not fit into what the device has
// free.
absl::Status CheckMemory(const proto::Recipe& recipe, const ModelConfig& config, const Backend& backend);

// What a pipeline rank's stages and share of the experts hold: elements of the parameters, and bytes of its
// weights, gradients and moments (which the ranks that hold the same parameters share out: ZeRO-1). A bound
// from below: activations and buffers come on top, and moments of a table that first and last stage share are
// counted as if all ranks had some.
struct RankState {
  double dense = 0;
  double experts = 0;
  double bytes = 0;
};
absl::StatusOr<RankState> StateOf(const proto::Recipe& recipe, const ModelConfig& config,
                                  const Layout& layout, int pipeline, DType act);

// Collective. kUnavailable, which all ranks return, where not even these (and activations, of ranks that are
// not a pipeline's and train on texts) fit into what is free: of ranks on the CPU those of one machine
// together, of others each into its device.
absl::Status CheckStateMemory(const proto::Recipe& recipe, const ModelConfig& config, const Layout& layout,
                              World& world, const Backend& backend);

}  // namespace moebius
