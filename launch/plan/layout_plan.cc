#include "launch/plan/layout_plan.h"

#include <algorithm>

#include "launch/recipe.pb.h"
#include "launch/train/settings.h"
#include "parallel/node_map.h"
#include "parallel/pipeline/lower.h"
#include "parallel/stages.h"

namespace moebius {

absl::StatusOr<LayoutPlan> FitPlan(const proto::Recipe& r, const ModelConfig& config, int ranks,
                                   int64_t sequences, int64_t ranks_per_node) {
  LayoutPlan plan;
  ASSIGN_OR_RETURN(plan.layout, LayoutOf(r, config, ranks));
  std::vector<int> node_of_rank(ranks);
  for (int rank = 0; rank < ranks && ranks_per_node > 0; ++rank) {
    node_of_rank[rank] = static_cast<int>(rank / ranks_per_node);
  }
  RETURN_IF_ERROR(CheckExchange(plan.layout, node_of_rank));
  const BatchSizes batch{.sequences = sequences, .microbatch_sequences = r.batch().microbatch_sequences()};
  const int64_t microbatches = MicrobatchesOf(plan.layout, batch);
  ASSIGN_OR_RETURN(plan.schedule, ScheduleOf(plan.layout, microbatches));
  if (plan.schedule.ComputeOnly()) {
    ASSIGN_OR_RETURN(plan.schedule, Lower(plan.schedule, {.shared_embedding = SharesEmbedding(config)}));
  }
  ASSIGN_OR_RETURN(plan.ranges, PlanStages(config, plan.schedule.stages));
  const double share = static_cast<double>(sequences) / plan.layout.batch_shards();
  const auto length = static_cast<double>(r.batch().sequence_length());
  plan.microbatch_tokens = share / static_cast<double>(microbatches) * length;
  const auto each = static_cast<double>(batch.microbatch_sequences);
  plan.largest_microbatch_tokens = (each > 0 ? std::min(share, each) : share) * length;
  return plan;
}

}  // namespace moebius
