#include "launch/train/memory.h"

#include <algorithm>

#include "core/backend/phantom.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/model/weights.h"
#include "launch/recipe.pb.h"
#include "launch/train/setup.h"
#include "parallel/comm/solo_world.h"

namespace moebius {
namespace {

// An allowance beside the tensors: CUDA's context, workspaces of libraries, scratch of kernels (attention's
// backward takes about 1 GiB).
constexpr int64_t kBesideTensors = int64_t{3} << 30;

// A frozen model that runs beside the trained one, with what it keeps of a microbatch
// (rl/loop/teacher_model).
struct Beside {
  std::unique_ptr<Model> model;
  std::unique_ptr<Microbatch> microbatch;
};

absl::StatusOr<Beside> RunBeside(const std::string& folder, const Context& context, DType act,
                                 int64_t sequences, int64_t length) {
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(folder));
  const ModelOptions options{
      .storage = {.act = act, .training = false}, .max_positions = length, .mtp = false};
  Beside out;
  out.model = std::make_unique<Model>(config, context.backend, context.stream, options);
  out.microbatch = std::make_unique<Microbatch>(context.backend, out.model->num_slots());
  const std::vector<int32_t> tokens(sequences * (length + 1), 0);
  out.microbatch->Load(context.stream, tokens, sequences, length, 0);
  const Objective objective{.recompute = {.blocks = true}, .gradients = false, .predicts = false};
  out.model->Forward(context, objective, *out.microbatch);
  return out;
}

}  // namespace

absl::StatusOr<int64_t> PredictPeakBytes(const proto::Recipe& recipe, const ModelConfig& config,
                                         const Backend& stands_for) {
  const std::unique_ptr<PhantomBackend> phantom =
      MakePhantomBackend({.auto_compute = stands_for.AutoCompute(), .piece_bytes = stands_for.piece_bytes()});
  SoloWorld world;
  ASSIGN_OR_RETURN(const Layout layout, LayoutOf(recipe, config, 1));
  const std::unique_ptr<Stream> stream = phantom->NewStream(StreamKind::kCompute);
  const ModelOptions options = ModelOptionsOf(recipe, config, ComputeOf(recipe, *phantom));
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::New(*world, *phantom, *stream, config, options, layout, TrainConfigOf(recipe)));
  int64_t sequences = recipe.batch().sequences();
  for (const auto& point : recipe.batch().ramp()) {
    sequences = std::max<int64_t>(sequences, point.to_sequences());
  }
  // One rank has one microbatch alive at a time; the second finds the first one's memory free.
  const int64_t each = recipe.batch().microbatch_sequences();
  if (each > 0) sequences = std::min(sequences, 2 * each);
  const int64_t length = recipe.batch().sequence_length();
  Beside teacher;
  if (recipe.task() == proto::DISTILL) {
    const int64_t at_once = each > 0 ? std::min(sequences, each) : sequences;
    ASSIGN_OR_RETURN(teacher, RunBeside(recipe.distill().teacher(), trainer->context(), options.storage.act,
                                        at_once, length));
  }
  const std::vector<int32_t> tokens(sequences * (length + 1), 0);
  RETURN_IF_ERROR(
      trainer->Step({.tokens = tokens, .sequences = sequences, .length = length, .document_starts = {}})
          .status());
  return phantom->peak_bytes();
}

absl::Status CheckMemory(const proto::Recipe& recipe, const ModelConfig& config, const Backend& backend) {
  const int64_t free = backend.free_bytes();
  if (free == 0) return absl::OkStatus();  // not known
  ASSIGN_OR_RETURN(const int64_t peak, PredictPeakBytes(recipe, config, backend));
  const int64_t needed = peak + (recipe.device() == proto::CUDA ? kBesideTensors : 0);
  if (needed <= free) return absl::OkStatus();
  const int64_t each = recipe.batch().microbatch_sequences() > 0 ? recipe.batch().microbatch_sequences()
                                                                 : recipe.batch().sequences();
  return UnavailableError(
      Concat("the run needs ", HumanBytes(static_cast<double>(needed)), " at its peak, ", backend.Name(),
             " has ", HumanBytes(static_cast<double>(free)), " free; ",
             each > 1 ? Concat("set batch.microbatch_sequences below ", each, ", or ") : std::string(),
             "set recompute { policy: BLOCKS }, optimizer { moments: BF16 }, or use more ranks"));
}

}  // namespace moebius
