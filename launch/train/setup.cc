#include "launch/train/setup.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/weights.h"
#include "launch/recipe.pb.h"
#include "launch/train/host_talk.h"
#include "launch/train/memory.h"
#include "launch/train/settings.h"
#include "launch/train/sources.h"
#include "optim/checkpoint.h"
#include "parallel/node_map.h"

namespace moebius {

absl::Status AgreeOnCompute(World& world, DType act) {
  if (world.size() == 1) return absl::OkStatus();
  HostTalk talk(world);
  ASSIGN_OR_RETURN(const std::vector<std::string> told, talk.Gather(Concat(act)));
  absl::Status status;
  for (int r = 1; r < world.size() && status.ok(); ++r) {
    if (told[r] == told[0]) continue;
    status =
        UnavailableError(Concat("precision.compute is AUTO, which is ", told[0], " on rank 0 and ", told[r],
                                " on rank ", r, ", whose processors differ; set precision.compute for all"));
  }
  return talk.Agree(status);
}

absl::StatusOr<Training> BuildTraining(const proto::Recipe& recipe, const ModelConfig& config, World& world,
                                       int threads) {
  ASSIGN_OR_RETURN(const Layout layout, LayoutOf(recipe, config, world.size()));
  Training t;
  DeviceOptions device = DeviceOf(recipe, world, threads);
  device.host_rows = HostTouchesRows(layout, world.node_of_rank());
  ASSIGN_OR_RETURN(t.backend, MakeBackend(device));
  t.stream = t.backend->NewStream(StreamKind::kCompute);
  RETURN_IF_ERROR(AgreeOnCompute(world, ComputeOf(recipe, *t.backend)));
  RETURN_IF_ERROR(world.size() == 1 ? CheckMemory(recipe, config, *t.backend)
                                    : CheckStateMemory(recipe, config, layout, world, *t.backend));
  const ModelOptions options = ModelOptionsOf(recipe, config, ComputeOf(recipe, *t.backend));
  ASSIGN_OR_RETURN(
      t.trainer, Trainer::New(world, *t.backend, *t.stream, config, options, layout, TrainConfigOf(recipe)));
  return t;
}

absl::Status InitializeWeights(const proto::Recipe& recipe, Training& t) {
  if (recipe.init().has_from() && !recipe.init().random()) {
    absl::StatusOr<std::optional<int64_t>> first_new_token = FirstNewToken(recipe);
    absl::Status status = first_new_token.status();
    const Communicator& all = t.trainer->mesh().all();
    if (FileExists(JoinPath(recipe.init().from(), "manifest.json"))) {
      status.Update(VerifyCheckpoint(recipe.init().from(), CheckpointPart::kModel, all.rank(), all.size()));
    }
    for (Model* model : t.trainer->stages().models()) {
      if (!status.ok()) break;
      const LoadOptions load{.first_new_token = *first_new_token};
      status = LoadWeights(recipe.init().from(), *t.backend, *t.stream, *model, load);
    }
    t.trainer->optimizer().ResetEma(t.trainer->context());
    return t.trainer->mesh().Agree(status);
  }
  t.trainer->InitializeWeights(recipe.seed());
  return absl::OkStatus();
}

}  // namespace moebius
