#include "rl/loop/policy_model.h"

#include "core/base/status.h"
#include "optim/whole_model.h"
#include "rl/loop/loop.pb.h"

namespace moebius {

PolicyModel::PolicyModel(Trainer& trainer, int64_t max_positions, const proto::Rl& rl)
    : trainer_(trainer), max_positions_(max_positions), mtp_(rl.drafts()) {}

absl::StatusOr<const Model*> PolicyModel::Get() {
  if (trainer_.holds_whole_model()) return &trainer_.model();
  if (gathered_ != nullptr && updates_ == trainer_.state().updates) return gathered_.get();
  const DType act = trainer_.stages().model(0).options().storage.act;
  decoder_.reset();
  gathered_.reset();
  ASSIGN_OR_RETURN(
      gathered_,
      GatherWholeModel(trainer_, {.storage = {.act = act}, .max_positions = max_positions_, .mtp = mtp_},
                       WholeModelOn::kEveryRank));
  updates_ = trainer_.state().updates;
  return gathered_.get();
}

Decoder& PolicyModel::FreeDecoder(const DecoderOptions& options) {
  if (decoder_ != nullptr && decoder_->options() == options) {
    decoder_->Refresh();
    return *decoder_;
  }
  const Model& model = trainer_.holds_whole_model() ? trainer_.model() : *gathered_;
  decoder_.reset();  // before the next one's caches are made
  decoder_ = std::make_unique<Decoder>(model, trainer_.context().backend, trainer_.context().stream, options);
  return *decoder_;
}

}  // namespace moebius
