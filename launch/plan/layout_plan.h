// A layout on paper: which layers a stage holds, what a step of its schedule costs, what a rank has in
// memory.
#pragma once

#include <vector>

#include "core/model/model.h"
#include "launch/recipe.h"
#include "parallel/layout.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {

struct LayoutPlan {
  Layout layout;
  Schedule schedule;  // with communication
  std::vector<StageRange> ranges;
  PipelineCosts costs;  // seconds, bytes
  Simulation run;
  double microbatch_tokens = 0;          // of a rank, on average
  double largest_microbatch_tokens = 0;  // the last may be smaller
};

// Layout, schedule and stages of a recipe on `ranks` ranks, so many a node (0: all), for a global batch of
// `sequences`, without costs. UsageError for what does not fit.
absl::StatusOr<LayoutPlan> FitPlan(const proto::Recipe& recipe, const ModelConfig& config, int ranks,
                                   int64_t sequences, int64_t ranks_per_node);

}  // namespace moebius
