// From the recipe's `rl` section to the options of what runs.
#pragma once

#include "core/generate/decoder.h"
#include "core/model/score.h"
#include "rl/loop/policy_batch.h"
#include "rl/loop/policy_source.h"
#include "rl/loop/rollout.h"

namespace moebius {

PolicyOptions PolicyOptionsOf(const proto::Rl& rl);
RolloutOptions RolloutOptionsOf(const proto::Rl& rl, int64_t max_length, uint64_t seed);
// Exact where the recipe wants it and the backend was made for it (a run of reinforcement).
DecoderOptions DecoderOptionsOf(const proto::Rl& rl, const Trainer& trainer);
// As the trainer's own forward runs.
ScoreOptions ScoreOptionsOf(const Trainer& trainer, double temperature = 1);

// context.evaluate on context.held_out; an empty report where there are no held-out problems.
absl::StatusOr<StepReport> EvaluateHeldOut(const SourceContext& context, PolicyModel& policy,
                                           const DecoderOptions& decoder);

}  // namespace moebius
