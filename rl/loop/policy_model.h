// The trained model as one stage on every rank, for rollouts and for scoring, whatever the layout of
// training.
#pragma once

#include <memory>

#include "optim/trainer.h"

namespace moebius {

namespace proto {
class Rl;
}  // namespace proto

class PolicyModel {
 public:
  // `max_positions`: of prompts with their answers. Has its MTP modules where rl.drafts needs them.
  PolicyModel(Trainer& trainer, int64_t max_positions, const proto::Rl& rl);

  // Collective. The present weights; valid until the trainer's next update. Layouts that cut the model gather
  // it once for each set of weights.
  absl::StatusOr<const Model*> Get();

 private:
  Trainer& trainer_;
  int64_t max_positions_;
  bool mtp_;
  int64_t updates_ = -1;  // that `gathered_` is of
  std::unique_ptr<Model> gathered_;
};

}  // namespace moebius
