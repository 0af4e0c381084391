// Whether a layout computes what one rank computes: the same model, data and steps on both, and the
// differences. What `moebius verify` and the tests of parallel training run.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "optim/trainer.h"

namespace moebius {

struct VerifyConfig {
  ModelConfig model;
  TrainConfig train;
  DType act = DType::kF32;
  int64_t sequences = 16;  // the global batch, of random tokens
  int64_t length = 16;
  int64_t steps = 10;
  uint64_t seed = 1;
  float sigma = 0.1f;  // of the weights: large enough that everything matters
};

// The same on all ranks.
struct LayoutResult {
  std::map<std::string, std::vector<float>> gradients;  // of step 1 before clipping, by checkpoint tensor
  std::vector<std::vector<int64_t>> counts;             // of step 1, by MoE layer and expert
  std::vector<StepMetrics> steps;
};

// Collective.
absl::StatusOr<LayoutResult> RunLayout(World& world, const VerifyConfig& config, const Layout& layout,
                                       int threads);
// The same with threads as ranks.
absl::StatusOr<LayoutResult> RunLayout(const VerifyConfig& config, const Layout& layout,
                                       const WorldOptions& world, int threads);

struct LayoutDifference {
  double gradient = 0;  // worst |difference| / |reference| of a tensor, Euclidean norms
  std::string tensor;   // that one
  int64_t counts = 0;   // tokens that went to another expert in step 1
  double loss = 0;      // worst relative difference of a loss over all steps
  int64_t step = 0;     // that one
};
LayoutDifference Compare(const LayoutResult& result, const LayoutResult& reference);

}  // namespace moebius
