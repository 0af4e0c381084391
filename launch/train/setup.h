// From a recipe to what runs: model config, training config, data, backend. Nothing here starts a step.
#pragma once

#include <memory>
#include <string>

#include "core/backend/device.h"
#include "data/loader.h"
#include "launch/recipe.h"
#include "optim/trainer.h"

namespace moebius {

// A recipe with its model known: what the recipe leaves open is filled in from init.from's config.json, the
// tokenizer, or that of the data if there is some.
absl::StatusOr<ModelConfig> ResolveModel(Recipe& recipe);
// Of a run that has begun, or of a fork, without that folder too: what it has of init.from its checkpoints
// have, and are read for it.
absl::StatusOr<ModelConfig> ResolveModelOfRun(Recipe& recipe, const std::string& run_folder);
// MissingError if the data, which ResolveModel does without, is not there.
absl::Status CheckTextsExist(const proto::Recipe& recipe);

// Collective. kUnavailable, which all ranks return, where precision.compute AUTO means another type on one.
absl::Status AgreeOnCompute(World& world, DType act);

TrainConfig TrainConfigOf(const proto::Recipe& recipe);
// Whether MTP modules, where the model has some, are run and trained: on texts alone.
bool TrainsMtp(const proto::Recipe& recipe);
absl::StatusOr<LoaderOptions> LoaderOptionsOf(const proto::Recipe& recipe, const ModelConfig& model);
// A view of `batch`, with the documents that data.document_mask keeps apart.
StepBatch StepBatchOf(const Batch& batch, const proto::Recipe& recipe);

// Compute dtype of precision.compute on this backend; under FP8 that of everything but the rounded products.
DType ComputeOf(const proto::Recipe& recipe, const Backend& backend);
// Rounding of the products of linear layers and experts.
Rounding RoundingOf(const proto::Recipe& recipe);
// "BF16", or what is FP8 and what is not.
std::string ComputeText(const proto::Recipe& recipe, DType act);

// Global batch, in sequences, of step `step` (1 for the first) under the batch ramp.
int64_t SequencesOfStep(const proto::Recipe& recipe, int64_t step);
// Steps after each other that have the same global batch: one entry without a ramp, and where there are none.
struct BatchPhase {
  int64_t steps;
  int64_t sequences;
};
std::vector<BatchPhase> BatchPhasesOf(const proto::Recipe& recipe);
// Of all steps together; steps may be too many to count or for the sum to be an int64_t.
double SequencesOfRun(const proto::Recipe& recipe);

// Everything that a training process holds.
struct Training {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Trainer> trainer;
};
// Nodes and links of parallel { }.
WorldOptions WorldOptionsOf(const proto::Recipe& recipe);

// parallel.exchange. AUTO is flat on GPUs: two levels are host code, which cannot reach their memory
// (HostTouchesRows).
ExchangeKind ExchangeKindOf(const proto::Recipe& recipe, Device device);

// The recipe's layout of `ranks` ranks; UsageError with everything that does not fit.
absl::StatusOr<Layout> LayoutOf(const proto::Recipe& recipe, const ModelConfig& config, int ranks);

// Of the trained model; `act` is ComputeOf the recipe.
ModelOptions ModelOptionsOf(const proto::Recipe& recipe, const ModelConfig& config, DType act);

// Where a rank of the run computes.
DeviceOptions DeviceOf(const proto::Recipe& recipe, const World& world, int threads);

// Collective. Builds backend and trainer of a rank with `threads` compute threads (0: the cores it may use);
// weights are undefined until InitializeWeights or LoadCheckpoint.
absl::StatusOr<Training> BuildTraining(const proto::Recipe& recipe, const ModelConfig& config, World& world,
                                       int threads);
// Step 0: from init.from, or random from the seed.
absl::Status InitializeWeights(const proto::Recipe& recipe, Training& training);

// What --dry-run prints: parameters, FLOPs, memory and time expected (from this machine's measured product
// peak).
std::string DescribePlan(const proto::Recipe& recipe, const ModelConfig& config, const Backend& backend,
                         double peak_flops);

}  // namespace moebius
