#include "launch/train/lineage.h"

#include <gtest/gtest.h>

#include "launch/recipe.pb.h"

namespace moebius {
namespace {

TEST(BeginFork, DataGoOnAtTheSameTokenWhateverTheLength) {
  proto::Recipe recipe;
  recipe.set_task(proto::PRETRAIN);
  for (const auto& [length, sequences] : {std::pair(32, 100), {16, 200}, {64, 50}, {48, 66}}) {
    recipe.mutable_batch()->set_sequence_length(length);
    TrainerState state;
    state.sequences = 100;
    state.tokens = 3200;
    BeginFork(recipe, state);
    EXPECT_EQ(state.sequences, sequences) << length;
    // A fork of the fork, of the same length, goes on where it was.
    state.sequences += 7;
    state.tokens += 7 * length;
    BeginFork(recipe, state);
    EXPECT_EQ(state.sequences, sequences + 7) << length;
  }
}

TEST(BeginFork, HowTheParentFaredIsForgotten) {
  proto::Recipe recipe;
  recipe.mutable_batch()->set_sequence_length(8);
  TrainerState state;
  state.step = 5;
  state.bad_in_a_row = 4;
  state.skipped_steps = 6;
  state.reference_step = state.proven_step = state.best_step = 3;
  BeginFork(recipe, state);
  EXPECT_EQ(state.step, 5);
  EXPECT_EQ(state.bad_in_a_row, 0);
  EXPECT_EQ(state.skipped_steps, 0);
  EXPECT_EQ(state.reference_step, -1);
  EXPECT_EQ(state.proven_step, -1);
  EXPECT_EQ(state.best_step, -1);
}

}  // namespace
}  // namespace moebius
