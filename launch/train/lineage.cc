#include "launch/train/lineage.h"

#include "launch/recipe.pb.h"
#include "launch/train/judge.h"
#include "optim/checkpoint.h"

namespace moebius {

void BeginFork(const proto::Recipe& recipe, TrainerState& state) {
  // The parent's weights are not in this run's folder.
  Judge::ForgetBest(state);
  state.unvalidated = false;
  state.reference_step = state.proven_step = -1;
  state.without_signal = 0;  // another recipe may have other rewards
  state.bad_in_a_row = state.skipped_steps = 0;
  state.elapsed_s = 0;
  const int64_t length = recipe.batch().sequence_length();
  const int64_t rest = state.tokens - state.sequences * length;
  const bool same = rest > -length && rest < length;  // but for what another fork has rounded
  if (recipe.task() == proto::PRETRAIN && !same) state.sequences = state.tokens / length;
}

int64_t ReferenceOf(const std::string& checkpoint) {
  const absl::StatusOr<TrainerState> state = ReadTrainerState(checkpoint);
  return state.ok() ? state->reference_step : -1;
}

}  // namespace moebius
