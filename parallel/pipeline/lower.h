// Adds to a schedule's compute actions what they need from other ranks, and the end of the step.
#pragma once

#include "absl/status/statusor.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

struct LowerOptions {
  // A RECV is posted this many compute actions before the one that needs it (or earlier, to keep the order of
  // messages), so that a transfer hides behind that much compute. Costs as many receive buffers.
  int receive_ahead = 1;
  // First and last stage both use the embedding table (tied head, MTP): its gradient is left out of
  // REDUCE_GRAD and reduced by REDUCE_TIED over all copies. Ignored when there is only one stage.
  bool shared_embedding = false;
  bool update_bias = true;  // UPDATE_BIAS at the end: the model has expert biases
};

// `compute` with, on every rank,
// - SEND right after the action that produced the tensor (none between two stages of one rank: the V's turn);
// - RECV as receive_ahead says; between two ranks RECVs are in the order of the SENDs, so that a transport
//   without tags can run them, as long as posting does not block;
// - REDUCE_GRAD after the last W of a stage, while the backward of others goes on. Ranks that share a set of
//   stages (DualPipe) finish them in different orders, but post their reductions in one: by stage, the tied
//   table last;
// - OPTIMIZE and UPDATE_BIAS at the end.
// `compute` must pass ValidateActions and be ComputeOnly(): else the error says what is wrong.
absl::StatusOr<Schedule> Lower(const Schedule& compute, const LowerOptions& options = {});

}  // namespace moebius
