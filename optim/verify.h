// Whether a layout computes what one rank computes: the same model, data and steps on both, and the
// differences. What `moebius verify` and the tests of parallel training run.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "core/backend/device.h"
#include "optim/trainer.h"

namespace moebius {

struct VerifyConfig {
  ModelConfig model;
  TrainConfig train;
  DType act = DType::kF32;
  Device device = Device::kCpu;
  int64_t sequences = 16;  // the global batch, of random tokens
  int64_t length = 16;
  int64_t steps = 10;
  uint64_t seed = 1;
  float sigma = 0.1f;          // of the weights: large enough that everything matters
  bool document_mask = false;  // random documents, of one token and more
  // [experts] of the selection bias of every layer at the start, for routing as skewed as one likes; empty:
  // 0.
  std::vector<float> selection_bias = {};
};

// The same on all ranks.
struct LayoutResult {
  std::map<std::string, std::vector<float>> gradients;  // of step 1 before clipping, by checkpoint tensor
  std::vector<std::vector<int64_t>> counts;             // of step 1, by MoE layer and expert
  std::vector<StepMetrics> steps;
  std::map<std::string, std::vector<float>> biases;  // of selection, after the last step, likewise
  double evaluation = 0;     // after the last step: cross-entropy of three sequences of different lengths
  std::string torn_replica;  // after the last step: a tensor of which two ranks hold different bytes; ""
  // Of each step, where one rank holds the whole model (else empty): MoeMlp::RoutingMargin's least.
  std::vector<double> margins;
};

// Collective.
absl::StatusOr<LayoutResult> RunLayout(World& world, const VerifyConfig& config, const Layout& layout,
                                       int threads);
// The same with threads as ranks.
absl::StatusOr<LayoutResult> RunLayout(const VerifyConfig& config, const Layout& layout,
                                       const WorldOptions& world, int threads);

// What the others are compared with: one rank here and now, in the calling thread. Of the seeds from
// config.seed on, at most `tries`, the first whose least margin is `margin` or more, else the one with the
// largest; config.seed is set to it. Otherwise rounding alone turns a choice over in every other model of a
// few thousand choices, and its token's experts get another gradient.
absl::StatusOr<LayoutResult> RunReference(VerifyConfig& config, int threads, double margin, int tries);

struct LayoutDifference {
  double gradient = 0;       // worst |difference| / |reference| of a tensor, Euclidean norms
  std::string tensor;        // that one
  int64_t counts = 0;        // tokens that went to another expert in step 1
  int64_t later_counts = 0;  // in the steps after it
  std::string bias;          // after the last step: the first selection bias that differs; ""
  double loss = 0;           // worst relative difference of a loss of any step, or of step 1's gradient norm
  int64_t step = 0;          // that one; steps + 1: the evaluation after them
  std::string torn_replica;  // the result's
};
LayoutDifference Compare(const LayoutResult& result, const LayoutResult& reference);

// What counts as equal in fp32. Where the reference's choice of experts hung by less than `flip_margin`,
// rounding may turn it over (a flip), and no figure that depends on it is wrong by itself up to `flip`.
struct VerifyBounds {
  double gradient = 1e-5;
  double loss = 1e-5;
  double flip_margin = 1e-6;
  double flip = 1e-4;
};
enum class Verdict { kEqual, kFlip, kDifferent };
// `reference` needs margins. Gradients are of step 1, so only a margin of step 1 excuses them and its counts.
// Selection biases move by signs of counts: they are equal to the last bit, or a choice was another one.
Verdict Judge(const LayoutDifference& difference, const LayoutResult& reference, const VerifyBounds& bounds);
// The least of the result's margins; infinity where nothing was chosen.
double SmallestMargin(const LayoutResult& result);

}  // namespace moebius
