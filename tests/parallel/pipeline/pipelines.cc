#include "tests/parallel/pipeline/pipelines.h"

#include <gtest/gtest.h>

namespace moebius {

Schedule Generate(const std::string& name, int ranks, int microbatches, int chunks) {
  auto schedule =
      GenerateSchedule({.name = name, .ranks = ranks, .microbatches = microbatches, .chunks = chunks});
  if (schedule.ok()) return *std::move(schedule);
  ADD_FAILURE() << schedule.status();
  return {};
}

Simulation Simulated(const Schedule& schedule, const PipelineCosts& costs) {
  auto run = Simulate(schedule, costs);
  if (run.ok()) return *std::move(run);
  ADD_FAILURE() << run.status();
  Simulation empty;
  empty.ranks.resize(1);
  return empty;
}

PipelineCosts Equal(double forward, double backward_input, double backward_weight, double overlapped_pair) {
  PipelineCosts costs;
  costs.stages = {{.forward = forward, .backward_input = backward_input, .backward_weight = backward_weight}};
  costs.overlapped_pair = overlapped_pair;
  return costs;
}

std::string Line(const Schedule& schedule, int rank) {
  std::string line;
  for (const Action& action : schedule.actions[rank]) line += (line.empty() ? "" : " ") + ToText(action);
  return line;
}

}  // namespace moebius
