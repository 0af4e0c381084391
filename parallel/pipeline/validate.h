// Is a schedule one that can be run? Asked of schedules that users write, and of every generator by its
// tests.
#pragma once

#include "absl/status/status.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

// The rules that can be checked rank by rank:
// - sizes, holders, stages, microbatches and peers are in range, and each action is on its holder's rank;
// - each (stage, microbatch) has exactly one F, one I and one W (a B is both), in this order; OVERLAP pairs
//   actions of different microbatches; where a rank holds two stages after each other, W of the later one
//   comes first, as it reads the other's output;
// - with communication: every tensor that crosses ranks has one SEND after its producer and one RECV before
//   its consumer, with the right peers; each held stage is reduced once, after its last W; REDUCE_TIED is on
//   all copies or on none; OPTIMIZE comes once, after all of these, and only UPDATE_BIAS after it.
// UsageError naming rank, position (from 0) and text of the action.
absl::Status ValidateActions(const Schedule& schedule);

// ValidateActions, and that the ranks together come to an end: no action waits for one that waits for it, and
// messages and reductions are posted in the same order on both sides (Simulate's error).
absl::Status Validate(const Schedule& schedule);

}  // namespace moebius
