#include "launch/plan/layout_plan.h"

#include "launch/recipe.pb.h"
#include "launch/train/setup.h"
#include "parallel/pipeline/lower.h"
#include "parallel/stages.h"

namespace moebius {

absl::StatusOr<LayoutPlan> FitPlan(const proto::Recipe& r, const ModelConfig& config, int ranks) {
  LayoutPlan plan;
  ASSIGN_OR_RETURN(plan.layout, LayoutOf(r, config, ranks));
  const BatchSizes batch{.sequences = r.batch().sequences(),
                         .microbatch_sequences = r.batch().microbatch_sequences()};
  const int64_t microbatches = MicrobatchesOf(plan.layout, batch);
  ASSIGN_OR_RETURN(plan.schedule, ScheduleOf(plan.layout, microbatches));
  if (plan.schedule.ComputeOnly()) {
    ASSIGN_OR_RETURN(plan.schedule, Lower(plan.schedule, {.shared_embedding = SharesEmbedding(config)}));
  }
  ASSIGN_OR_RETURN(plan.ranges, PlanStages(config, plan.schedule.stages));
  plan.microbatch_tokens = static_cast<double>(batch.sequences) / plan.layout.batch_shards() /
                           static_cast<double>(microbatches) *
                           static_cast<double>(r.batch().sequence_length());
  return plan;
}

RankState StateOf(const proto::Recipe& r, const ModelConfig& config, const LayoutPlan& plan, int pipeline,
                  DType act, Backend& backend, Stream& stream) {
  RankState state;
  for (const int stage : plan.schedule.StagesOf(pipeline)) {
    ModelOptions options{.stage = plan.ranges[stage], .allocate = false};
    if (plan.layout.expert > 1) options.experts.count = config.n_routed_experts / plan.layout.expert;
    const Model model(config, backend, stream, options);
    for (const auto& p : model.parameters().all()) {
      (p->spec().expert ? state.experts : state.dense) += static_cast<double>(p->shape().elements());
    }
  }
  const double holders = plan.schedule.directions();
  const double moments = (r.optimizer().moments() == proto::Optimizer::BF16 ? 2 : 4) * 2 +
                         (r.optimizer().ema_decay() > 0 ? 4 : 0);
  const double copy = act == DType::kBF16 ? 2 : 0;
  state.bytes = (state.dense + state.experts) * (8 + copy) +
                state.dense * moments / (plan.layout.batch_shards() * holders) +
                state.experts * moments / (plan.layout.data * holders);
  return state;
}

}  // namespace moebius
