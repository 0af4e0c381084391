// Runs a schedule on paper: when every action starts and ends for given costs, what idles, what memory is
// live, and whether the ranks get stuck waiting for each other.
//
// The model is the engine's: a rank runs its compute actions one at a time in list order; each waits for what
// it needs. SEND, RECV and REDUCE are posted in passing and take no compute time. A transfer starts when both
// sides have posted it and the message before it has left the link; links are one per ordered pair of ranks.
// Times are in any one unit; whole numbers stay exact.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

struct StageCosts {
  double forward = 1;          // F, with its token exchange
  double backward_input = 1;   // I, with its token exchange
  double backward_weight = 1;  // W; B is I + W
  // How much of F and of I is exchange, that the compute of another microbatch can hide in OVERLAP.
  double forward_exchange = 0;
  double backward_exchange = 0;
  double activation_bytes = 1;  // of one microbatch on this stage, from F to the end of W
  double held_bytes = 0;        // beside them from I to the end of W, where W comes later
  // While an action runs, beside both: F, B, and I or W alone.
  double forward_work_bytes = 0;
  double backward_work_bytes = 0;
  double input_work_bytes = 0;
  double reduce_grad = 0;
};

struct PipelineCosts {
  std::vector<StageCosts> stages = {StageCosts{}};  // one for each stage, or one for all
  // Time of an OVERLAP of F with B ("F&B" in DualPipe's tables) on every stage; < 0: from the parts, as
  // max(sum of compute, sum of exchange), which without exchange is their sum.
  double overlapped_pair = -1;
  double transfer_latency = 0;  // from posted to the first byte
  double transfer_time = 0;     // occupies the link
  double reduce_tied = 0;
  double optimize = 0;
  double update_bias = 0;
  double scratch_bytes = 0;  // of a rank, whatever it does; not part of peak_bytes
  // The share of an activation that is freed at the end of I already; W frees the rest.
  double freed_by_input = 0;

  const StageCosts& Stage(int stage) const { return stages.size() == 1 ? stages[0] : stages[stage]; }
};

struct Interval {
  double start = 0;
  double end = 0;
};

struct RankFigures {
  double busy = 0;              // sum of compute
  double idle = 0;              // makespan - busy: what the published bubble formulas count
  double idle_inside = 0;       // between this rank's own first and last compute
  double bubble = 0;            // idle / makespan
  double peak_activations = 0;  // live (stage, microbatch) pairs
  double peak_bytes = 0;        // the most of what microbatches keep and the action at work takes
  double work_bytes = 0;        // of peak_bytes: what the action takes
  int held_stages = 0;          // stages whose parameters the rank has
};

struct Simulation {
  Schedule schedule;                         // what was run, with communication
  std::vector<std::vector<Interval>> times;  // [ranks][actions]; SEND and RECV: the transfer, REDUCE likewise
  std::vector<RankFigures> ranks;
  double makespan = 0;  // end of the last compute action
  double step_end = 0;  // with reductions, OPTIMIZE and UPDATE_BIAS

  // The rank that idles most, and its share.
  int worst_rank() const;
  double bubble() const { return ranks[worst_rank()].bubble; }
  double worst_idle() const { return ranks[worst_rank()].idle; }
};

// A ComputeOnly() schedule is lowered first, with default options. Errors: those of ValidateActions; costs
// that are negative, not finite, or not one a stage; and a deadlock or messages out of order, with the ranks,
// positions and actions that wait for each other.
absl::StatusOr<Simulation> Simulate(const Schedule& schedule, const PipelineCosts& costs);

// The time of one compute action.
double ComputeTime(const Action& action, const PipelineCosts& costs);

}  // namespace moebius
