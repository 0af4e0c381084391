#include "parallel/pipeline/bubble.h"

#include <algorithm>

namespace moebius {
namespace {

StageCosts Mean(const PipelineCosts& costs) {
  StageCosts mean = {.forward = 0, .backward_input = 0, .backward_weight = 0};
  const double share = 1.0 / static_cast<double>(costs.stages.size());
  for (const StageCosts& stage : costs.stages) {
    mean.forward += stage.forward * share;
    mean.backward_input += stage.backward_input * share;
    mean.backward_weight += stage.backward_weight * share;
    mean.forward_exchange += stage.forward_exchange * share;
    mean.backward_exchange += stage.backward_exchange * share;
  }
  return mean;
}

bool EqualTimes(const PipelineCosts& costs) {
  const StageCosts& a = costs.stages[0];
  return std::all_of(costs.stages.begin(), costs.stages.end(), [&](const StageCosts& b) {
    return a.forward == b.forward && a.backward_input == b.backward_input &&
           a.backward_weight == b.backward_weight && a.forward_exchange == b.forward_exchange &&
           a.backward_exchange == b.backward_exchange;
  });
}

}  // namespace

std::optional<BubbleFormula> PublishedBubble(const Schedule& schedule, const PipelineCosts& costs) {
  const int ranks = schedule.ranks, microbatches = schedule.microbatches;
  const bool equal = EqualTimes(costs);
  PipelineCosts mean_costs = costs;
  mean_costs.stages = {equal ? costs.stages[0] : Mean(costs)};  // a mean of equals may round
  const StageCosts& mean = mean_costs.stages[0];
  const double f = mean.forward, i = mean.backward_input, w = mean.backward_weight, b = i + w;
  BubbleFormula formula;
  bool holds = true;
  if (schedule.name == "gpipe" || schedule.name == "1f1b") {
    formula = {.text = "(PP-1)(F+B)", .value = (ranks - 1) * (f + b), .exact_when = "always"};
  } else if (schedule.name == "interleaved") {
    // The paper's F and B are a rank's: v stages of ours.
    formula = {.text = "(PP-1)(F+B)/v",
               .value = (ranks - 1) * (f + b),
               .exact_when = "microbatches are a multiple of PP"};
    holds = microbatches % ranks == 0;
  } else if (schedule.name == "zb_h1") {
    formula = {.text = "(PP-1)(F+B-2W)",
               .value = (ranks - 1) * (f + b - 2 * w),
               .exact_when = "W <= F, W <= I, microbatches >= PP"};
    holds = w <= f && w <= i && microbatches >= ranks;
  } else if (schedule.name == "zbv") {
    // No rank waits once it has begun, but they begin one F apart: over a common end that is idle time.
    formula = {.text = "(PP-1)F, none of it inside a rank",
               .value = (ranks - 1) * f,
               .exact_when = "F = I = W, microbatches >= 2PP-1"};
    holds = f == i && i == w && microbatches >= 2 * ranks - 1;
  } else if (schedule.name == "dualpipe" || schedule.name == "dualpipev") {
    const int half = schedule.name == "dualpipe" ? ranks / 2 : ranks;
    const double pair =
        ComputeTime(OverlapAction({ActionKind::kForward, 0, 0}, {ActionKind::kBackward, 0, 1}), mean_costs);
    formula = {.text = "(PP/2-1)(F&B+B-3W)",
               .value = (half - 1) * (pair + b - 3 * w),
               .exact_when = "F = I >= W, F + I <= F&B <= F + B"};
    holds = f == i && w <= i && f + i <= pair && pair <= f + b;
  } else {
    return std::nullopt;
  }
  formula.exact = holds && equal && costs.transfer_time == 0 && costs.transfer_latency == 0;
  return formula;
}

}  // namespace moebius
