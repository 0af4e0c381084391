#include "launch/train/settings.h"

#include <algorithm>
#include <string>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/build_options.h"
#include "launch/recipe.pb.h"
#include "parallel/comm/links.h"

namespace moebius {
namespace {

DecayShape ShapeOf(proto::Optimizer::Shape shape) {
  switch (shape) {
    case proto::Optimizer::LINEAR:
      return DecayShape::kLinear;
    case proto::Optimizer::ONE_MINUS_SQRT:
      return DecayShape::kOneMinusSqrt;
    case proto::Optimizer::HALF_COSINE:
      return DecayShape::kHalfCosine;
  }
  return DecayShape::kLinear;
}

ScheduleConfig ScheduleOf(const proto::Optimizer& o) {
  ScheduleConfig s{.lr = o.lr(),
                   .min_lr = o.min_lr(),
                   .warmup_steps = o.warmup_steps(),
                   .decay_steps = o.decay_steps(),
                   .decay_shape = ShapeOf(o.decay_shape()),
                   .phases = {}};
  switch (o.schedule()) {
    case proto::Optimizer::CONSTANT:
      s.kind = ScheduleKind::kConstant;
      break;
    case proto::Optimizer::COSINE:
      s.kind = ScheduleKind::kCosine;
      break;
    case proto::Optimizer::WSD:
      s.kind = ScheduleKind::kWsd;
      break;
    case proto::Optimizer::V3_PIECEWISE:
      s.kind = ScheduleKind::kPiecewise;
      break;
  }
  // Which warm-up rises to.
  if (o.schedule() == proto::Optimizer::V3_PIECEWISE && o.phase_size() > 0) s.lr = o.phase(0).from_lr();
  for (const auto& phase : o.phase()) {
    s.phases.push_back({phase.steps(), phase.from_lr(), phase.to_lr(), ShapeOf(phase.shape())});
  }
  return s;
}

RecomputePolicy RecomputeOf(const proto::Recipe& recipe) {
  const int64_t rows = recipe.parallel().max_expert_rows();
  switch (recipe.recompute().policy()) {
    case proto::Recompute::NONE:
      return {.swiglu = false, .max_expert_rows = rows};
    case proto::Recompute::SELECTIVE:
      return {.norms = true, .mla_up = true, .swiglu = true, .max_expert_rows = rows};
    case proto::Recompute::BLOCKS:
      return {.swiglu = true, .blocks = true, .max_expert_rows = rows};
  }
  return {};
}

WireFormat WireFormatOf(proto::Parallel::Rows rows) {
  switch (rows) {
    case proto::Parallel::ACT:
      return WireFormat::kAct;
    case proto::Parallel::BF16:
      return WireFormat::kBF16;
    case proto::Parallel::FP8:
      return WireFormat::kF8;
  }
  return WireFormat::kAct;
}

ExchangeOptions ExchangeOf(const proto::Recipe& recipe) {
  const proto::Parallel& p = recipe.parallel();
  return {.kind = ExchangeKindOf(recipe, recipe.device() == proto::CUDA ? Device::kCuda : Device::kCpu),
          .dispatch = WireFormatOf(p.dispatch()),
          .combine = WireFormatOf(p.combine())};
}

// Rotary tables as long as the run needs: a model made for 160k positions and trained at 512 keeps small
// ones.
int64_t PositionsOf(const proto::Recipe& recipe, const ModelConfig& config) {
  int64_t prompts = 0;
  for (const std::string& prompt : recipe.sample().prompts()) {
    prompts = std::max<int64_t>(prompts, prompt.size());  // a token is a byte at least
  }
  const int64_t needed =
      std::max(recipe.batch().sequence_length() + 1, prompts + recipe.sample().max_new() + 8);
  return std::max(needed, std::min<int64_t>(config.max_position_embeddings, 4096));
}

double BiasSpeedOf(const proto::Recipe& r) {
  const bool frozen = r.task() == proto::GRPO && r.rl().router_bias() == proto::Rl::FROZEN;
  return frozen ? 0 : r.balance().bias_update_speed();
}

}  // namespace

TrainConfig TrainConfigOf(const proto::Recipe& r) {
  const proto::Optimizer& o = r.optimizer();
  return {.steps = r.steps(),
          .microbatch_sequences = r.batch().microbatch_sequences(),
          .schedule = ScheduleOf(o),
          .optimizer = {.beta1 = o.beta1(),
                        .beta2 = o.beta2(),
                        .epsilon = o.epsilon(),
                        .weight_decay = o.weight_decay(),
                        .moments = o.moments() == proto::Optimizer::BF16 ? DType::kBF16 : DType::kF32,
                        .ema_decay = o.ema_decay()},
          .clip_norm = o.clip_norm(),
          .bias_update_speed = BiasSpeedOf(r),
          .sequence_loss = r.balance().sequence_loss(),
          .auxiliary_loss = r.balance().auxiliary_loss(),
          .router_z_loss = r.balance().router_z_loss(),
          // Groups of answers have no MTP depths.
          .mtp_loss_weight = r.task() == proto::PRETRAIN ? r.mtp().loss_weight() : 0,
          .recompute = RecomputeOf(r),
          .rounding = RoundingOf(r)};
}

bool TrainsMtp(const proto::Recipe& recipe) { return TrainConfigOf(recipe).mtp_loss_weight > 0; }

absl::StatusOr<LoaderOptions> LoaderOptionsOf(const proto::Recipe& r, const ModelConfig& model) {
  return LoaderOptionsFrom(r.data(), r.batch().sequence_length(), model.vocab_size, r.seed());
}

DType ComputeOf(const proto::Recipe& recipe, const Backend& backend) {
  switch (recipe.precision().compute()) {
    case proto::Precision::FP32:
      return DType::kF32;
    case proto::Precision::BF16:
      return DType::kBF16;
    case proto::Precision::AUTO:
    case proto::Precision::FP8:
      break;
  }
  return backend.AutoCompute();
}

Rounding RoundingOf(const proto::Recipe& recipe) {
  return recipe.precision().compute() == proto::Precision::FP8 ? Rounding::kFp8 : Rounding::kNone;
}

std::string ComputeText(const proto::Recipe& recipe, DType act) {
  if (RoundingOf(recipe) == Rounding::kNone) return Concat(act);
  return Concat("FP8 in linear layers and experts, ", act, " elsewhere");
}

int64_t SequencesOfStep(const proto::Recipe& recipe, int64_t step) {
  int64_t sequences = recipe.batch().sequences();
  for (const auto& point : recipe.batch().ramp()) {
    if (step >= point.at_step()) sequences = point.to_sequences();
  }
  return sequences;
}

std::vector<BatchPhase> BatchPhasesOf(const proto::Recipe& recipe) {
  const int64_t end = recipe.steps() + 1;
  std::vector<BatchPhase> phases;
  int64_t from = 1, sequences = recipe.batch().sequences();
  const auto until = [&](int64_t step) {
    const int64_t next = std::clamp(step, from, end);
    if (next > from) phases.push_back({next - from, sequences});
    from = next;
  };
  for (const auto& point : recipe.batch().ramp()) {
    until(point.at_step());
    sequences = point.to_sequences();
  }
  until(end);
  if (phases.empty()) phases.push_back({0, sequences});
  return phases;
}

double SequencesOfRun(const proto::Recipe& recipe) {
  double sum = 0;
  for (const BatchPhase& phase : BatchPhasesOf(recipe))
    sum += static_cast<double>(phase.steps) * static_cast<double>(phase.sequences);
  return sum;
}

WorldOptions WorldOptionsOf(const proto::Recipe& recipe) {
  const proto::Parallel& p = recipe.parallel();
  const auto speed = [](const proto::Link& link) {
    return LinkSpeed{.bytes_per_s = link.gigabytes_per_s() * 1e9, .latency_s = link.latency_us() * 1e-6};
  };
  WorldOptions options{.ranks_per_node = static_cast<int>(p.ranks_per_node())};
  options.links[kLinkWithinNode] = speed(p.within_node());
  options.links[kLinkBetweenNodes] = speed(p.between_nodes());
  return options;
}

ExchangeKind ExchangeKindOf(const proto::Recipe& recipe, Device device) {
  switch (recipe.parallel().exchange()) {
    case proto::Parallel::AUTO:
      break;
    case proto::Parallel::FLAT:
      return ExchangeKind::kFlat;
    case proto::Parallel::TWO_LEVEL:
      return ExchangeKind::kTwoLevel;
    case proto::Parallel::GATHER:
      return ExchangeKind::kGather;
  }
  return device == Device::kCuda ? ExchangeKind::kFlat : ExchangeKind::kAuto;
}

absl::StatusOr<Layout> LayoutOf(const proto::Recipe& recipe, const ModelConfig& config, int ranks) {
  const proto::Parallel& p = recipe.parallel();
  int64_t smallest = recipe.batch().sequences();
  for (const auto& point : recipe.batch().ramp())
    smallest = std::min<int64_t>(smallest, point.to_sequences());
  const Layout wanted{.pipeline = static_cast<int>(p.pipeline()),
                      .data = static_cast<int>(p.data()),
                      .expert = static_cast<int>(p.expert()),
                      .schedule = p.schedule(),
                      .chunks = static_cast<int>(p.chunks()),
                      .exchange = ExchangeOf(recipe)};
  // Answers to a prompt are packed by their own lengths.
  const bool whole =
      recipe.task() == proto::PRETRAIN || recipe.task() == proto::SFT || recipe.task() == proto::DISTILL;
  const auto fit = [&](int64_t sequences) {
    return FitLayout(wanted, ranks, config,
                     {.sequences = sequences,
                      .microbatch_sequences = recipe.batch().microbatch_sequences(),
                      .length = whole ? recipe.batch().sequence_length() : 0});
  };
  RETURN_IF_ERROR(fit(recipe.batch().sequences()).status());
  for (const auto& point : recipe.batch().ramp()) {
    RETURN_IF_ERROR(
        Annotate(fit(point.to_sequences()).status(), Concat("batch.ramp at step ", point.at_step())));
  }
  return fit(smallest);
}

DeviceOptions DeviceOf(const proto::Recipe& recipe, const World& world, int threads) {
  return {.device = recipe.device() == proto::CUDA ? Device::kCuda : Device::kCpu,
          .threads = threads,
          .rank = world.machine_rank(),
          .deterministic = recipe.precision().deterministic(),
          .batch_invariant = recipe.task() == proto::GRPO && recipe.rl().rollout() == proto::Rl::EXACT};
}

ModelOptions ModelOptionsOf(const proto::Recipe& recipe, const ModelConfig& config, DType act) {
  ModelOptions options;
  options.storage = {.act = act, .training = true};
  options.max_positions = PositionsOf(recipe, config);
  return options;
}

StepBatch StepBatchOf(const Batch& batch, const proto::Recipe& recipe) {
  StepBatch step{.tokens = batch.tokens,
                 .sequences = batch.num_sequences,
                 .length = batch.sequence_length,
                 .document_starts = {}};
  if (recipe.data().document_mask()) step.document_starts = batch.document_starts;
  return step;
}

}  // namespace moebius
