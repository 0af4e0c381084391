// What the sections of a recipe mean to the code that runs them. Pure functions: nothing is built or read
// here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/backend/device.h"
#include "data/loader.h"
#include "launch/recipe.h"
#include "optim/trainer.h"

namespace moebius {

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

}  // namespace moebius
