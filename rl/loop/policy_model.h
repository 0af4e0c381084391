// The trained model as one stage on every rank, for rollouts and for scoring, whatever the layout of
// training.
#pragma once

#include <memory>

#include "optim/trainer.h"

namespace moebius {

class PolicyModel {
 public:
  // `max_positions`: of prompts with their answers.
  PolicyModel(Trainer& trainer, int64_t max_positions) : trainer_(trainer), max_positions_(max_positions) {}

  // Collective. The present weights; valid until the trainer's next update. Layouts that cut the model gather
  // it once for each set of weights.
  absl::StatusOr<const Model*> Get();

 private:
  Trainer& trainer_;
  int64_t max_positions_;
  int64_t updates_ = -1;  // that `gathered_` is of
  std::unique_ptr<Model> gathered_;
};

}  // namespace moebius
