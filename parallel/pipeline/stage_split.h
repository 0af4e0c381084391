// Which layers each stage holds, so that the costliest stage costs as little as can be: it sets the
// pipeline's pace.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace moebius {

// Costs in any one unit, say seconds of F + B a microbatch.
struct SplitCosts {
  std::vector<double> layers;  // in order; dense and MoE layers differ
  double embedding = 0;        // runs on the first stage
  double head = 0;             // final norm, head and loss, MTP modules: on the last stage
};

struct LayerRange {
  int64_t first_layer = 0;
  int64_t last_layer = 0;  // one past the last
  double cost = 0;         // with embedding or head
};

// The contiguous split into `stages` ranges of at least one layer with the smallest maximum cost (exact, by
// dynamic programming; Megatron and PyTorch divide by count), and among those the one with the smallest sum
// of squares, so that no stage is heavier than it has to be. UsageError for fewer layers than stages (with
// the valid numbers) and for costs that are negative or not finite.
absl::StatusOr<std::vector<LayerRange>> SplitLayers(const SplitCosts& costs, int stages);

}  // namespace moebius
