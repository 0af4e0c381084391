// What checkpoints have of others: a fork of its parent, a policy of its reference.
#pragma once

#include <cstdint>
#include <string>

#include "launch/recipe.h"
#include "optim/trainer.h"

namespace moebius {

// The parent's step, updates and position in the data stay; what it came to and how it went is not this
// run's. Samples of another length are counted anew, so that the data go on at the same token.
void BeginFork(const proto::Recipe& recipe, TrainerState& state);

// The step of the checkpoint that the policy in `checkpoint` is compared with; -1: none.
int64_t ReferenceOf(const std::string& checkpoint);

}  // namespace moebius
