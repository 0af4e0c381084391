// The trained model as one stage on every rank, for rollouts and for scoring, whatever the layout of
// training.
#pragma once

#include <memory>

#include "core/generate/decoder.h"
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

  // A decoder of the model that Get() gave, all its slots free; valid as long as that is. Where training
  // holds the whole model it is the same one with its caches from step to step, as long as the options are.
  Decoder& FreeDecoder(const DecoderOptions& options);

 private:
  Trainer& trainer_;
  int64_t max_positions_;
  bool mtp_;
  int64_t updates_ = -1;  // that `gathered_` is of
  std::unique_ptr<Model> gathered_;
  std::unique_ptr<Decoder> decoder_;  // of the trainer's model or of `gathered_`
};

}  // namespace moebius
