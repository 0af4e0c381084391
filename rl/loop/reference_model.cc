#include "rl/loop/reference_model.h"

#include "core/base/status.h"
#include "core/model/weights.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<Model>> LoadReference(Trainer& trainer, const std::string& folder,
                                                     int64_t max_positions) {
  const Context& c = trainer.context();
  const DType act = trainer.stages().model(0).options().storage.act;
  auto model = std::make_unique<Model>(
      trainer.model_config(), c.backend, c.stream,
      ModelOptions{.storage = {.act = act, .training = false}, .max_positions = max_positions, .mtp = false});
  RETURN_IF_ERROR(trainer.mesh().Agree(LoadWeights(folder, c.backend, c.stream, *model)));
  return model;
}

}  // namespace moebius
