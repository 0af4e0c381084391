#include "launch/train/setup.h"

#include <algorithm>
#include <cstdio>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/cost.h"
#include "core/model/weights.h"
#include "data/build_options.h"
#include "data/special_tokens.h"
#include "data/token_file.h"
#include "launch/environment.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"
#include "launch/train/memory.h"
#include "launch/train/sources.h"
#include "optim/checkpoint.h"
#include "parallel/comm/agree.h"
#include "parallel/node_map.h"

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

// The checkpoint's config is what others read its limits from.
absl::Status CheckLimits(const proto::Recipe& r, const ModelConfig& config) {
  if (r.batch().sequence_length() > config.max_position_embeddings) {
    return UsageError(
        Concat("batch.sequence_length is ", r.batch().sequence_length(),
               " and model.max_position_embeddings ", config.max_position_embeddings,
               "; score and generate will not take longer texts than that; raise the second or shorten the "
               "sequences"));
  }
  for (const auto& [name, id] :
       {std::pair("bos", config.bos_token_id), std::pair("eos", config.eos_token_id)}) {
    if (id < config.vocab_size) continue;
    return UsageError(Concat("model.", name, "_token_id is ", id, " of ", config.vocab_size,
                             " tokens; ids end before model.vocab_size; correct it"));
  }
  return absl::OkStatus();
}

// The token file whose tokenizer a run on texts has.
std::string FirstTexts(const proto::Recipe& r) {
  return r.data().mixture().empty() ? r.data().train() : r.data().mixture(0).path();
}

// A new model begins and ends its texts as the tokenizer of its data does. Data that is not there yet is no
// error: a run can be planned before its data is built.
absl::Status FillEndsOfTexts(Recipe& recipe) {
  const proto::Model& said = recipe.proto().model();
  const std::string path = FirstTexts(recipe.proto());
  if ((said.has_bos_token_id() && said.has_eos_token_id()) || !FileExists(path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenFile> file, TokenFile::Open(path));
  if (file->info().tokenizer_json.empty()) return absl::OkStatus();
  const std::string source = path + ": /tokenizer_json";
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::FromJson(file->info().tokenizer_json, source));
  proto::Model model;
  // In token files a document begins behind the end of another: no other token begins texts.
  if (const auto end = FindEndOfDocument(tokenizer))
    model.set_bos_token_id(*end), model.set_eos_token_id(*end);
  // A model with fewer tokens than its data is refused where the data is opened.
  if (tokenizer.vocab_size() > said.vocab_size()) return absl::OkStatus();
  return recipe.FillModel(model, source);
}

absl::StatusOr<ModelConfig> ModelOf(Recipe& recipe) {
  const bool begins = !recipe.proto().init().has_from() || recipe.proto().init().random();
  if (recipe.proto().init().has_from()) {
    ASSIGN_OR_RETURN(const ModelConfig from, LoadConfig(recipe.proto().init().from()));
    proto::Model model;
    ConfigToProto(from, &model);
    if (recipe.proto().init().random()) {  // it ends texts as its own tokenizer does
      model.clear_bos_token_id();
      model.clear_eos_token_id();
    }
    RETURN_IF_ERROR(recipe.FillModel(model, JoinPath(recipe.proto().init().from(), "config.json")));
  }
  if (recipe.proto().task() == proto::PRETRAIN) {
    if (begins) RETURN_IF_ERROR(FillEndsOfTexts(recipe));
    return ConfigFromProto(recipe.proto().model());
  }
  // Every token has its row: new ones, and all of a model that is made for the tokenizer. Such a model also
  // ends its texts as the tokenizer does.
  ASSIGN_OR_RETURN(const std::string json, TokenizerJsonOf(recipe.proto()));
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::FromJson(json, "the tokenizer"));
  if (!recipe.proto().init().has_from()) {
    const proto::Model& said = recipe.proto().model();
    if (said.has_vocab_size() && said.vocab_size() < tokenizer.vocab_size()) {
      return UsageError(Concat("model.vocab_size is ", said.vocab_size(), ", and the tokenizer has ",
                               tokenizer.vocab_size(),
                               " tokens; each needs a row of its own; raise it, or leave it out"));
    }
    proto::Model model;
    model.set_vocab_size(tokenizer.vocab_size());
    RETURN_IF_ERROR(recipe.FillModel(model, "the tokenizer"));
  }
  if (const std::optional<int32_t> end = FindEndOfDocument(tokenizer); begins && end) {
    proto::Model model;
    model.set_eos_token_id(*end);
    RETURN_IF_ERROR(recipe.FillModel(model, "the tokenizer"));
  }
  if (recipe.proto().model().vocab_size() < tokenizer.vocab_size())
    recipe.SetVocabSize(tokenizer.vocab_size(), "the tokenizer");
  return ConfigFromProto(recipe.proto().model());
}

}  // namespace

absl::Status CheckTextsExist(const proto::Recipe& r) {
  const std::string path = FirstTexts(r);
  if (r.task() != proto::PRETRAIN || FileExists(path)) return absl::OkStatus();
  return TokenFile::Open(path).status();
}

absl::StatusOr<ModelConfig> ResolveModelOfRun(Recipe& recipe, const std::string& run_folder) {
  const std::string from = recipe.proto().init().from();
  const proto::Fork& fork = recipe.proto().fork();
  if (from.empty() || FolderExists(from)) return ResolveModel(recipe);
  std::string checkpoint = JoinPath(run_folder, "checkpoints/latest");
  if (!FolderExists(checkpoint) && fork.has_from()) {
    const auto step = fork.has_step() ? std::optional<int64_t>(fork.step()) : std::nullopt;
    if (auto forked = CheckpointToFork(fork.from(), step); forked.ok()) checkpoint = *std::move(forked);
  }
  if (FolderExists(checkpoint)) recipe.ReadInitFrom(checkpoint);
  return ResolveModel(recipe);
}

absl::StatusOr<ModelConfig> ResolveModel(Recipe& recipe) {
  if (recipe.proto().task() == proto::PIPELINE) {
    std::string stages;
    for (const proto::Stage& stage : recipe.proto().stage())
      stages += Concat(stages.empty() ? "" : ", ", stage.recipe());
    return UsageError(Concat("task is PIPELINE; each stage has a model of its own; name the recipe of one: ",
                             Printable(stages, 200)));
  }
  ASSIGN_OR_RETURN(ModelConfig config, ModelOf(recipe));
  RETURN_IF_ERROR(CheckLimits(recipe.proto(), config));
  return config;
}

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

absl::Status AgreeOnCompute(World& world, DType act) {
  if (world.size() == 1) return absl::OkStatus();
  const std::unique_ptr<Backend> talker = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = talker->NewStream(StreamKind::kExchange);
  ASSIGN_OR_RETURN(const std::vector<std::string> told, GatherText(world.all(), *stream, Concat(act)));
  absl::Status status;
  for (int r = 1; r < world.size() && status.ok(); ++r) {
    if (told[r] == told[0]) continue;
    status =
        UnavailableError(Concat("precision.compute is AUTO, which is ", told[0], " on rank 0 and ", told[r],
                                " on rank ", r, ", whose processors differ; set precision.compute for all"));
  }
  return Agree(world.all(), *stream, status);
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

StepBatch StepBatchOf(const Batch& batch, const proto::Recipe& recipe) {
  StepBatch step{.tokens = batch.tokens,
                 .sequences = batch.num_sequences,
                 .length = batch.sequence_length,
                 .document_starts = {}};
  if (recipe.data().document_mask()) step.document_starts = batch.document_starts;
  return step;
}

std::string DescribePlan(const proto::Recipe& r, const ModelConfig& config, const Backend& backend,
                         double peak_flops) {
  const proto::Parallel& p = r.parallel();
  const bool several = std::max({p.pipeline(), p.data(), p.expert()}) > 1;
  const absl::StatusOr<int64_t> peak = PredictPeakBytes(r, config, backend);
  const int64_t length = r.batch().sequence_length();
  const ModelCost cost = CostOf(config, length);
  const bool mtp = TrainsMtp(r) && config.num_nextn_predict_layers > 0;
  const double flops = cost.train_flops + (mtp ? cost.train_flops_mtp : 0);
  const double tokens = SequencesOfRun(r) * static_cast<double>(MostTokens(r));
  const DType act = ComputeOf(r, backend);
  const double stored = static_cast<double>(cost.parameters + cost.mtp_parameters);
  const double moments = r.optimizer().moments() == proto::Optimizer::BF16 ? 2 : 4;
  const double copy = act == DType::kBF16 ? 2 : 0;
  const double ema = r.optimizer().ema_decay() > 0 ? 4 : 0;
  const double state = stored * (4 + 4 + 2 * moments + copy + ema);
  // Half of the product peak is what the benchmark model reaches at least; small models come lower.
  const double seconds = tokens * flops / (0.5 * peak_flops);
  char line[256];
  std::string out = Concat("model        ", config.model_type, ", ", WithCommas(cost.parameters),
                           " parameters (", WithCommas(cost.active), " active)");
  if (mtp) out += Concat(" + ", WithCommas(cost.mtp_parameters), " in MTP modules");
  std::snprintf(line, sizeof line, "\ncompute      %.4g GFLOP a token trained, %.4g PFLOP in all",
                flops / 1e9, flops * tokens / 1e15);
  out += line;
  out += Concat(
      "\ndata         ", r.task() == proto::PRETRAIN ? "" : "at most ",
      WithCommas(static_cast<int64_t>(std::min(tokens, 9e18))), " tokens in ", WithCommas(r.steps()),
      " steps of ", r.batch().sequences(),
      r.batch().ramp_size() > 0 ? Concat(" to ", r.batch().ramp().rbegin()->to_sequences()) : std::string(),
      " x ", length);
  out += Concat("\nmemory       ",
                peak.ok() ? Concat(HumanBytes(static_cast<double>(*peak)), " at the peak of one rank alone: ")
                          : std::string(),
                HumanBytes(state), " for weights, gradients and moments",
                peak.ok() ? ", the rest for activations"
                          : " of the model once, which ranks share and repeat; moebius plan has each rank's");
  if (!peak.ok() && !several)
    out += Concat("\nnote         one rank alone is refused: ", std::string(peak.status().message()));
  if (peak_flops > 0) {
    out += Concat("\ntime         about ", HumanSeconds(seconds), " at half of this machine's measured ",
                  static_cast<int64_t>(peak_flops / 1e9), " GFLOP/s");
  }
  out += Concat("\nbackend      ", backend.Name(), ", computing in ", ComputeText(r, act), "\n");
  return out;
}

}  // namespace moebius
