#include "optim/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "core/backend/draw.h"
#include "core/backend/ops.h"
#include "core/base/status.h"
#include "optim/balance.h"
#include "parallel/node_map.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {
namespace {

// PyTorch's clip_grad_norm_ divides by norm + 1e-6; golden runs are made with it.
constexpr double kClipEpsilon = 1e-6;

// As people read it: of a NaN's sign there is nothing to say.
double PlainNan(double value) { return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value; }

// Weight decay must not shrink modules that are not trained.
AdamWConfig OptimizerOf(const TrainConfig& config) {
  AdamWConfig out = config.optimizer;
  out.update_mtp = config.mtp_loss_weight != 0;
  return out;
}

double Mean(const std::vector<std::vector<int64_t>>& layers, double (*of)(const std::vector<int64_t>&)) {
  if (layers.empty()) return 0;
  double sum = 0;
  for (const auto& counts : layers) sum += of(counts);
  return sum / static_cast<double>(layers.size());
}

void AddCounts(const std::vector<std::vector<int64_t>>& counts, std::vector<std::vector<int64_t>>& to) {
  to.resize(counts.size());
  for (size_t l = 0; l < counts.size(); ++l) {
    to[l].resize(counts[l].size());
    for (size_t e = 0; e < counts[l].size(); ++e) to[l][e] += counts[l][e];
  }
}

void AddMeans(const std::vector<StepMetrics>& updates, StepMetrics& to) {
  for (const auto member :
       {&StepMetrics::loss, &StepMetrics::grad_norm, &StepMetrics::balance_loss, &StepMetrics::auxiliary_loss,
        &StepMetrics::z_loss, &StepMetrics::entropy, &StepMetrics::divergence, &StepMetrics::agreement,
        &StepMetrics::max_violation, &StepMetrics::load_entropy, &StepMetrics::bubble}) {
    for (const StepMetrics& m : updates) to.*member += m.*member / static_cast<double>(updates.size());
  }
}

}  // namespace

Trainer::Trainer(Backend& backend, Stream& stream, const TrainConfig& config)
    : scratch_(backend), context_{backend, stream, scratch_}, config_(config) {}

// A rank that leaves a failed world has messages and reductions under way: they work on memory and events of
// the engine and the buckets, which go before the mesh and its streams do.
Trainer::~Trainer() {
  if (mesh_ != nullptr) mesh_->Drain();
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::New(World& world, Backend& backend, Stream& stream,
                                                      const ModelConfig& model, const ModelOptions& options,
                                                      const Layout& layout, const TrainConfig& config) {
  RETURN_IF_ERROR(CheckExchange(layout, world.node_of_rank()));
  RETURN_IF_ERROR(CheckRouter(model, backend.router_limits(), backend.Name()));
  std::unique_ptr<Trainer> t(new Trainer(backend, stream, config));
  ASSIGN_OR_RETURN(const Schedule shape, ScheduleShape(layout));
  ASSIGN_OR_RETURN(const std::vector<StageRange> ranges, PlanStages(model, shape.stages));
  ASSIGN_OR_RETURN(t->mesh_, Mesh::New(world, backend, layout, shape));
  ModelOptions stage_options = options;
  stage_options.storage.gradients = false;
  t->stages_ = std::make_unique<Stages>(*t->mesh_, backend, stream, model, shape, ranges, stage_options);
  // Ranks that share stages (DualPipe) end them in different orders and so agree on one at the end.
  const bool one_holder = shape.directions() == 1;
  t->buckets_ =
      std::make_unique<GradientBuckets>(*t->mesh_, backend, stream, t->stages_->models(),
                                        t->stages_->shared_table(), BucketOptions{.early = one_holder});
  t->engine_ = std::make_unique<Engine>(*t->mesh_, t->context_, *t->stages_, t->buckets_.get());
  t->optimizer_ =
      std::make_unique<AdamWOptimizer>(t->buckets_->owned(), backend, stream, OptimizerOf(config));
  t->traffic_ = world.traffic();
  t->shape_ = shape;
  return t;
}

bool Trainer::holds_whole_model() const {
  return mesh_->layout().pipeline == 1 && stages_->count() == 1 && mesh_->layout().expert == 1;
}

Model& Trainer::model() const {
  CHECK(holds_whole_model()) << ToText(mesh_->layout());
  return stages_->model(0);
}

void Trainer::InitializeWeights(uint64_t seed) {
  for (Model* model : stages_->models()) {
    model->parameters().Initialize(context_.backend, context_.stream, seed,
                                   static_cast<float>(model_config().initializer_range));
  }
  optimizer_->ResetEma(context_);
}

absl::Status Trainer::GatherMasters() {
  buckets_->Gather(GradientBuckets::Share::kMasters);
  context_.stream.Synchronize();
  return mesh_->all().status();
}

absl::Status Trainer::Close() { return mesh_->Close(); }

Objective Trainer::MakeObjective(const BatchSize& size) const {
  Objective objective;
  objective.token_scale = static_cast<float>(1 / size.predictions);
  objective.balance.sequence = static_cast<float>(config_.sequence_loss / size.sequences);
  objective.balance.auxiliary = static_cast<float>(config_.auxiliary_loss / size.sequences);
  objective.balance.z = static_cast<float>(config_.router_z_loss / size.tokens);
  objective.recompute = config_.recompute;
  objective.rounding = config_.rounding;
  return objective;
}

absl::Status Trainer::MakeSchedule(int64_t microbatches) {
  if (schedule_.microbatches == microbatches) return absl::OkStatus();
  // A file has been read once, and may be another one by now.
  const bool known = IsScheduleFile(mesh_->layout()) && shape_.microbatches == microbatches;
  absl::StatusOr<Schedule> made = known ? shape_ : ScheduleOf(mesh_->layout(), microbatches);
  RETURN_IF_ERROR(made.status());
  Schedule schedule = *std::move(made);
  if (schedule.ComputeOnly()) {
    const bool shares = SharesEmbedding(model_config());
    ASSIGN_OR_RETURN(schedule, Lower(schedule, {.shared_embedding = shares}));
  }
  ASSIGN_OR_RETURN(const Simulation run, Simulate(schedule, {}));
  expected_peak_ = static_cast<int>(run.ranks[mesh_->at().pipeline].peak_activations);
  schedule_ = std::move(schedule);
  return absl::OkStatus();
}

absl::StatusOr<StepMetrics> Trainer::ForwardBackward(const StepBatch& batch) {
  const int64_t row = batch.length + 1;
  CHECK_EQ(static_cast<int64_t>(batch.tokens.size()), batch.sequences * row);
  const Layout& layout = mesh_->layout();
  const BatchSizes sizes{.sequences = batch.sequences, .microbatch_sequences = config_.microbatch_sequences};
  RETURN_IF_ERROR(MakeSchedule(MicrobatchesOf(layout, sizes)));
  const double tokens = static_cast<double>(batch.sequences) * static_cast<double>(batch.length);
  const BatchSize size{
      .predictions = tokens, .sequences = static_cast<double>(batch.sequences), .tokens = tokens};
  Objective objective = MakeObjective(size);
  const int64_t modules = model_config().num_nextn_predict_layers;
  if (modules > 0) objective.mtp_scale = static_cast<float>(config_.mtp_loss_weight / (modules * tokens));
  CHECK_EQ(batch.sequences % layout.batch_shards(), 0);
  const int64_t share = batch.sequences / layout.batch_shards();
  const int64_t first = mesh_->at().batch_shard(layout) * share;
  const int64_t each = config_.microbatch_sequences > 0 ? config_.microbatch_sequences : share;
  const int depths = objective.mtp_scale != 0 ? static_cast<int>(modules) : 0;
  return Run(
      objective,
      [&](int microbatch, Microbatch& to) {
        const int64_t begin = first + microbatch * each, count = std::min(each, first + share - begin);
        std::vector<std::vector<int32_t>> starts;
        if (!batch.document_starts.empty()) {
          starts.assign(batch.document_starts.begin() + begin, batch.document_starts.begin() + begin + count);
        }
        to.Load(context_.stream, batch.tokens.subspan(begin * row, count * row), count, batch.length, depths,
                starts);
      },
      size);
}

int64_t Trainer::MicrobatchesFrom(int64_t wanted) const {
  const Layout& layout = mesh_->layout();
  if (IsScheduleFile(layout)) return shape_.microbatches;
  for (int64_t n = std::max<int64_t>(wanted, layout.pipeline); n <= wanted + 2 * layout.pipeline; ++n) {
    if (n == schedule_.microbatches || ScheduleOf(layout, n).ok()) return n;
  }
  return shape_.microbatches;
}

int64_t Trainer::GroupsAtLeast() const { return mesh_->layout().batch_shards() * MicrobatchesFrom(1); }

// Each rank's share of the groups, and of these each microbatch's, are as equal as whole groups allow.
absl::StatusOr<StepMetrics> Trainer::ForwardBackward(const GroupBatch& batch) {
  const Layout& layout = mesh_->layout();
  const int64_t groups = std::ssize(batch.groups), shards = layout.batch_shards();
  CHECK_GE(groups, GroupsAtLeast());
  const int64_t least = groups / shards, each = config_.microbatch_sequences;
  int64_t microbatches = MicrobatchesFrom(each > 0 ? (least + each - 1) / each : 1);
  // Some schedules want even numbers, or equal rounds: where there are too few groups for the next one that
  // they run, one below.
  for (int64_t wanted = least; microbatches > least; --wanted) microbatches = MicrobatchesFrom(wanted);
  RETURN_IF_ERROR(MakeSchedule(microbatches));
  int64_t balanced = 0, tokens = 0;
  for (const AnswerGroup& group : batch.groups) {
    if (group.balances) ++balanced, tokens += group.Tokens();
  }
  const auto at_least_1 = [](int64_t n) { return static_cast<double>(std::max<int64_t>(n, 1)); };
  const BatchSize size{.predictions = at_least_1(batch.predictions),
                       .sequences = at_least_1(balanced),
                       .tokens = at_least_1(tokens)};
  Objective objective = MakeObjective(size);
  objective.token_scale = static_cast<float>(batch.scale);
  objective.inverse_temperature = DrawScale(batch.temperature);
  objective.entropies = batch.entropies;
  objective.entropy_scale = static_cast<float>(batch.entropy_scale);
  const int64_t shard = mesh_->at().batch_shard(layout);
  const int64_t first = shard * groups / shards, share = (shard + 1) * groups / shards - first;
  return Run(
      objective,
      [&](int microbatch, Microbatch& to) {
        const int64_t begin = first + microbatch * share / microbatches;
        const int64_t count = first + (microbatch + 1) * share / microbatches - begin;
        to.LoadGroups(context_.stream, batch.groups.subspan(begin, count));
        if (batch.weigh != nullptr) {
          to.weigh = [&batch, begin, count](std::span<const float> losses, std::span<float> weights) {
            batch.weigh(begin, count, losses, weights);
          };
        }
        if (batch.observe != nullptr) {
          to.observe = [&batch, begin, count](std::span<const float> losses,
                                              std::span<const float> entropies) {
            batch.observe(begin, count, losses, entropies);
          };
        }
        if (batch.teach != nullptr) {
          to.teach = [&batch, begin, count] { return batch.teach(begin, count); };
        }
      },
      size);
}

absl::StatusOr<StepMetrics> Trainer::Run(const Objective& objective, const Engine::Loader& load,
                                         const BatchSize& size) {
  StepSums sums;
  StepMetrics m;
  const auto start = Clock::now();
  RETURN_IF_ERROR(engine_->RunStep(schedule_, objective, load, sums));
  // What was promised before the launch.
  CHECK_LE(engine_->peak_activations(), expected_peak_) << "live activations in " << schedule_.name;
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  m.bubble = 1 - engine_->busy_seconds() / seconds;
  RETURN_IF_ERROR(AddUp(objective, size, sums, m));
  return m;
}

// Sums of ranks become the step's figures, the same on all.
absl::Status Trainer::AddUp(const Objective& objective, const BatchSize& size, StepSums& sums,
                            StepMetrics& m) {
  const double depths = static_cast<double>(model_config().num_nextn_predict_layers);
  double squares = optimizer_->GradientSquares(context_);
  RETURN_IF_ERROR(mesh_->Sum({&sums.loss, &sums.mtp_loss, &sums.balance, &sums.auxiliary, &sums.z, &squares,
                              &sums.entropy, &sums.divergence, &sums.agreement, &sums.routes_given,
                              &sums.routes_changed}));
  RETURN_IF_ERROR(mesh_->Sum(std::span<int64_t>(sums.counts)));
  m.loss = PlainNan(sums.loss / size.predictions);
  if (objective.mtp_scale != 0) m.mtp_loss = sums.mtp_loss / (size.predictions * depths);
  m.balance_loss = sums.balance / size.sequences;
  m.auxiliary_loss = sums.auxiliary / size.sequences;
  m.z_loss = sums.z / size.tokens;
  m.entropy = sums.entropy / size.predictions;
  m.divergence = sums.divergence / size.predictions;
  m.agreement = sums.agreement / size.predictions;
  m.routes_given = std::llround(sums.routes_given);
  m.routes_changed = std::llround(sums.routes_changed);
  m.grad_norm = PlainNan(std::sqrt(squares));
  const int64_t experts = model_config().n_routed_experts;
  // Modules that were not run (loss weight 0) have no counts.
  const int64_t layers =
      stages_->num_moe_layers() -
      (experts > 0 && objective.mtp_scale == 0 ? model_config().num_nextn_predict_layers : 0);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const auto row = sums.counts.begin() + layer * experts;
    m.expert_counts.emplace_back(row, row + experts);
  }
  m.max_violation = Mean(m.expert_counts, MaxViolation);
  m.load_entropy = Mean(m.expert_counts, LoadEntropy);
  return absl::OkStatus();
}

absl::StatusOr<StepMetrics> Trainer::Step(const StepBatch& batch) {
  const auto start = Clock::now();
  ASSIGN_OR_RETURN(StepMetrics m, ForwardBackward(batch));
  m.step = ++state_.step;
  m.lr = LearningRate(config_.schedule, state_.step, config_.steps);
  state_.sequences += batch.sequences;
  m.tokens = batch.sequences * batch.length;
  state_.tokens += m.tokens;
  m.skipped = !Update(m);
  CountStep(!m.skipped);
  RETURN_IF_ERROR(FinishStep(start, m));
  return m;
}

absl::StatusOr<StepMetrics> Trainer::Step(std::span<const GroupBatch> updates, int64_t consumed) {
  CHECK(!updates.empty());
  const auto start = Clock::now();
  StepMetrics sum;
  sum.step = ++state_.step;
  sum.lr = LearningRate(config_.schedule, state_.step, config_.steps);
  state_.sequences += consumed;
  std::vector<StepMetrics> good, bad;
  for (const GroupBatch& batch : updates) {
    ASSIGN_OR_RETURN(StepMetrics m, ForwardBackward(batch));
    // A group that only fills a rank's batch is work, and how many there are depends on the layout.
    for (const AnswerGroup& group : batch.groups) sum.tokens += group.Predictions() > 0 ? group.Tokens() : 0;
    m.lr = sum.lr;
    sum.routes_given += m.routes_given;
    sum.routes_changed += m.routes_changed;
    AddCounts(m.expert_counts, sum.expert_counts);
    (Update(m) ? good : bad).push_back(std::move(m));
  }
  AddMeans(good.empty() ? bad : good, sum);
  sum.skipped_updates = std::ssize(bad);
  sum.skipped = good.empty();
  CountStep(!sum.skipped);
  state_.tokens += sum.tokens;
  RETURN_IF_ERROR(FinishStep(start, sum));
  return sum;
}

StepMetrics Trainer::PassStep(int64_t consumed) {
  state_.sequences += consumed;
  StepMetrics m;
  m.step = ++state_.step;
  m.ranks = mesh_->all().size();
  return m;
}

// Moves everything, or, where numbers are bad, nothing.
bool Trainer::Update(const StepMetrics& m) {
  const bool good = std::isfinite(m.loss) && std::isfinite(m.mtp_loss) && std::isfinite(m.grad_norm);
  if (good) {
    const double clip =
        config_.clip_norm > 0 ? std::min(1.0, config_.clip_norm / (m.grad_norm + kClipEpsilon)) : 1.0;
    optimizer_->Step(context_, m.lr, clip, ++state_.updates);
    buckets_->Gather(GradientBuckets::Share::kWeights);
    UpdateBiases(m.expert_counts);
  }
  if (!good || mesh_->all().size() > 1) buckets_->Clear(context_);
  return good;
}

void Trainer::CountStep(bool moved) {
  state_.skipped_steps += moved ? 0 : 1;
  state_.bad_in_a_row = moved ? 0 : state_.bad_in_a_row + 1;
}

// Waits for everything and adds what a step came to.
absl::Status Trainer::FinishStep(Clock::time_point start, StepMetrics& m) {
  context_.stream.Synchronize();
  RETURN_IF_ERROR(mesh_->all().status());
  m.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const TrafficCounters traffic = mesh_->world().traffic();
  const auto sent = [&](LinkClass link) { return traffic[link].sent_bytes - traffic_[link].sent_bytes; };
  int64_t bytes[] = {sent(kLinkWithinNode), sent(kLinkBetweenNodes)};
  traffic_ = traffic;
  RETURN_IF_ERROR(mesh_->Sum(std::span<int64_t>(bytes)));
  m.bytes_within = bytes[0];
  m.bytes_between = bytes[1];
  auto held = static_cast<double>(HeldBytes());
  RETURN_IF_ERROR(mesh_->Max({&held, &m.bubble}));
  m.peak_bytes = static_cast<int64_t>(held);
  m.ranks = mesh_->all().size();
  return absl::OkStatus();
}

void Trainer::UpdateBiases(const std::vector<std::vector<int64_t>>& counts) {
  if (config_.bias_update_speed == 0) return;
  std::vector<Parameter*> biases;
  std::vector<float> moves;  // [biases, experts]
  for (int i = 0; i < stages_->count(); ++i) {
    const std::vector<const MoeMlp*> layers = stages_->model(i).moe_layers();
    for (size_t l = 0; l < layers.size(); ++l) {
      const size_t layer = stages_->first_moe_layer(i) + l;
      Parameter* bias = layers[l]->parameters().bias;
      if (bias == nullptr || layer >= counts.size()) continue;  // modules that were not run stay as they are
      biases.push_back(bias);
      const std::vector<float> of_layer = BiasMoves(counts[layer], config_.bias_update_speed);
      moves.insert(moves.end(), of_layer.begin(), of_layer.end());
    }
  }
  if (biases.empty()) return;
  ArenaScope scope(context_.scratch);
  const int64_t layers = std::ssize(biases);
  const TensorView on_device = context_.scratch.New(DType::kF32, {layers, std::ssize(moves) / layers});
  context_.backend.CopyToDevice(context_.stream, moves.data(), on_device);
  for (int64_t l = 0; l < layers; ++l) {
    CHECK_EQ(biases[l]->weight().data, biases[l]->master().data) << "a selection bias is fp32";
    Accumulate(context_, {.x = on_device.Index(l), .y = biases[l]->weight()});
  }
}

absl::StatusOr<double> Trainer::Evaluate(std::span<const int32_t> ids, std::span<const int32_t> starts,
                                         std::span<const int32_t> attention_starts) {
  const Layout& layout = mesh_->layout();
  const int64_t n = static_cast<int64_t>(starts.size()) - 1, shards = layout.batch_shards();
  const int64_t shard = mesh_->at().batch_shard(layout);
  int64_t first = shard * n / shards, last = (shard + 1) * n / shards;
  // Expert ranks run every layer together, so one without a share runs the first sequence and forgets it.
  const bool counts = first < last;
  if (!counts) first = 0, last = 1;
  std::vector<int32_t> mine(starts.begin() + first, starts.begin() + last + 1);
  std::vector<int32_t> attention;
  for (const int32_t start : attention_starts) {
    if (start >= starts[first] && start <= starts[last]) attention.push_back(start - starts[first]);
  }
  for (int32_t& start : mine) start -= starts[first];
  const std::span<const int32_t> tokens = ids.subspan(starts[first], mine.back());
  std::vector<float> losses;
  RETURN_IF_ERROR(engine_->RunForward(
      shape_, Objective::WithoutBackward(config_.recompute.max_expert_rows),
      [&](int, Microbatch& to) { to.LoadRagged(context_.stream, tokens, mine, attention); }, losses));
  double sum = 0;
  for (const float loss : losses) sum += counts ? loss : 0;
  RETURN_IF_ERROR(mesh_->Sum({&sum}));
  return sum;
}

int64_t Trainer::HeldBytes() const {
  int64_t bytes = optimizer_->bytes() + scratch_.peak_bytes() + engine_->activation_bytes() +
                  buckets_->bytes() + stages_->pool_bytes();
  for (const Model* model : stages_->models()) {
    for (const auto& parameter : model->parameters().all()) {
      bytes += parameter->weight().bytes();
      if (parameter->master() && parameter->master().data != parameter->weight().data)
        bytes += parameter->master().bytes();
    }
  }
  return bytes;
}

}  // namespace moebius
