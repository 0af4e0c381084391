#include "parallel/pipeline/simulate.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/run_times.h"
#include "parallel/pipeline/validate.h"

namespace moebius {
namespace {

absl::Status CheckCosts(const PipelineCosts& costs, int stages) {
  if (costs.stages.size() != 1 && costs.stages.size() != static_cast<size_t>(stages)) {
    return UsageError(Concat("costs are given for ", costs.stages.size(),
                             " stages; give one for each of the ", stages, ", or one for all"));
  }
  std::vector<double> values = {costs.transfer_latency, costs.transfer_time, costs.reduce_tied,
                                costs.optimize,         costs.update_bias,   costs.freed_by_input};
  for (const StageCosts& stage : costs.stages) {
    values.insert(values.end(), {stage.forward, stage.backward_input, stage.backward_weight,
                                 stage.forward_exchange, stage.backward_exchange, stage.activation_bytes,
                                 stage.held_bytes, stage.forward_work_bytes, stage.backward_work_bytes,
                                 stage.input_work_bytes, stage.reduce_grad});
  }
  for (double value : values) {
    if (!std::isfinite(value) || value < 0)
      return UsageError(Concat("a cost is ", value, "; give finite ones >= 0"));
  }
  for (const StageCosts& stage : costs.stages) {
    if (stage.forward_exchange > stage.forward || stage.backward_exchange > stage.backward_input) {
      return UsageError("the exchange of a phase costs more than the phase, which includes it");
    }
  }
  if (!std::isfinite(costs.overlapped_pair)) return UsageError("overlapped_pair is not finite");
  if (costs.freed_by_input > 1)
    return UsageError(Concat("freed_by_input is ", costs.freed_by_input, ", not 0 to 1"));
  return absl::OkStatus();
}

// Both parts of an OVERLAP are live at once: allocations are counted before what the action frees.
void CountMemory(const std::vector<Action>& list, const PipelineCosts& costs, RankFigures& figures) {
  double live = 0, bytes = 0;
  const auto add = [&](int stage, double share) {
    live += share;
    bytes += share * costs.Stage(stage).activation_bytes;
    figures.peak_activations = std::max(figures.peak_activations, live);
  };
  for (const Action& action : list) {
    double work = 0;
    for (const Compute& part : PartsOf(action)) {
      const StageCosts& stage = costs.Stage(part.stage);
      const bool input = HasBackwardInput(part.kind), weight = HasBackwardWeight(part.kind);
      if (HasForward(part.kind)) add(part.stage, 1);
      if (input && !weight) bytes += stage.held_bytes;
      work += HasForward(part.kind) ? stage.forward_work_bytes : 0;
      if (input || weight) work += input && weight ? stage.backward_work_bytes : stage.input_work_bytes;
    }
    if (bytes + work > figures.peak_bytes) {
      figures.peak_bytes = bytes + work;
      figures.work_bytes = work;
    }
    for (const Compute& part : PartsOf(action)) {
      const bool input = HasBackwardInput(part.kind), weight = HasBackwardWeight(part.kind);
      if (input) add(part.stage, -costs.freed_by_input);
      if (weight && !input) bytes -= costs.Stage(part.stage).held_bytes;
      if (weight) add(part.stage, costs.freed_by_input - 1);
    }
  }
}

void CountTime(Simulation& run) {
  for (int rank = 0; rank < run.schedule.ranks; ++rank) {
    RankFigures& figures = run.ranks[rank];
    std::optional<double> first;
    double last = 0;
    for (size_t i = 0; i < run.times[rank].size(); ++i) {
      const auto& [start, end] = run.times[rank][i];
      run.step_end = std::max(run.step_end, end);
      if (!IsCompute(run.schedule.actions[rank][i].kind)) continue;
      if (!first) first = start;
      last = end;
      figures.busy += end - start;
    }
    figures.idle_inside = last - first.value_or(0) - figures.busy;
    run.makespan = std::max(run.makespan, last);
  }
  for (RankFigures& figures : run.ranks) {
    figures.idle = run.makespan - figures.busy;
    figures.bubble = run.makespan > 0 ? figures.idle / run.makespan : 0;
  }
}

}  // namespace

double ComputeTime(const Action& action, const PipelineCosts& costs) {
  const auto total = [&](const Compute& part) {
    const StageCosts& stage = costs.Stage(part.stage);
    return (HasForward(part.kind) ? stage.forward : 0) +
           (HasBackwardInput(part.kind) ? stage.backward_input : 0) +
           (HasBackwardWeight(part.kind) ? stage.backward_weight : 0);
  };
  const auto exchange = [&](const Compute& part) {
    const StageCosts& stage = costs.Stage(part.stage);
    return (HasForward(part.kind) ? stage.forward_exchange : 0) +
           (HasBackwardInput(part.kind) ? stage.backward_exchange : 0);
  };
  if (action.kind != ActionKind::kOverlap) return total({action.kind, action.stage, action.microbatch});
  const auto& [a, b] = action.overlap;
  const bool pair = (HasForward(a.kind) && b.kind == ActionKind::kBackward) ||
                    (HasForward(b.kind) && a.kind == ActionKind::kBackward);
  if (costs.overlapped_pair >= 0 && pair) return costs.overlapped_pair;
  const double exchanged = exchange(a) + exchange(b);
  return std::max(total(a) + total(b) - exchanged, exchanged);
}

int Simulation::worst_rank() const {
  const auto less = [](const RankFigures& a, const RankFigures& b) { return a.idle < b.idle; };
  return static_cast<int>(std::max_element(ranks.begin(), ranks.end(), less) - ranks.begin());
}

absl::StatusOr<Simulation> Simulate(const Schedule& schedule, const PipelineCosts& costs) {
  RETURN_IF_ERROR(ValidateActions(schedule));
  RETURN_IF_ERROR(CheckCosts(costs, schedule.stages));
  Simulation run;
  const bool lowered_here = schedule.ComputeOnly();
  if (lowered_here) {
    ASSIGN_OR_RETURN(run.schedule, Lower(schedule));
  } else {
    run.schedule = schedule;
  }
  const ErrorPositions positions = lowered_here ? ErrorPositions::kCountCompute : ErrorPositions::kCountAll;
  ASSIGN_OR_RETURN(run.times, RunTimes(run.schedule, costs, positions));
  run.ranks.resize(schedule.ranks);
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    run.ranks[rank].held_stages = static_cast<int>(schedule.StagesOf(rank).size());
    CountMemory(run.schedule.actions[rank], costs, run.ranks[rank]);
  }
  CountTime(run);
  return run;
}

}  // namespace moebius
