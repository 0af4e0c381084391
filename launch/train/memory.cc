#include "launch/train/memory.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>

#include "core/backend/phantom.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/cost.h"
#include "core/model/score.h"
#include "core/model/weights.h"
#include "launch/recipe.pb.h"
#include "launch/train/host_talk.h"
#include "launch/train/settings.h"
#include "launch/train/validation.h"
#include "parallel/comm/solo_world.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/stages.h"
#include "rl/loop/rl_options.h"

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
                                 int64_t max_expert_rows, int64_t sequences, int64_t length) {
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(folder));
  const ModelOptions options{
      .storage = {.act = act, .training = false}, .max_positions = length, .mtp = false};
  Beside out;
  out.model = std::make_unique<Model>(config, context.backend, context.stream, options);
  out.microbatch = std::make_unique<Microbatch>(context.backend, out.model->num_slots());
  const std::vector<int32_t> tokens(sequences * (length + 1), 0);
  out.microbatch->Load(context.stream, tokens, sequences, length, 0);
  Objective objective = Objective::WithoutBackward(max_expert_rows);
  objective.predicts = false;
  out.model->Forward(context, objective, *out.microbatch);
  return out;
}

// The largest groups that the task may train on: conversations and pairs of answers that fill
// batch.sequence_length, prompts that leave room for rl.max_new and whose answers all are as long.
std::vector<AnswerGroup> LargestGroups(const proto::Recipe& r, int64_t count) {
  const int64_t length = r.batch().sequence_length();
  const bool asks = r.task() == proto::GRPO || r.task() == proto::REJECTION;
  const int64_t answer = asks ? std::clamp<int64_t>(r.rl().max_new(), 1, length - 1) : length - 1;
  AnswerGroup group{.prompt = std::vector<int32_t>(length - answer), .answers = {}};
  group.answers.resize(asks ? r.rl().group_size() : r.task() == proto::DPO ? 2 : 1);
  for (AnswerGroup::Answer& a : group.answers) a.tokens.resize(answer);
  return std::vector<AnswerGroup>(count, group);
}

// A decoder with its caches, as sampling and evaluation leave it; null where the task asks no problems.
std::unique_ptr<Decoder> DecodeBeside(const proto::Recipe& r, const Trainer& trainer) {
  if (!r.has_problems()) return nullptr;
  const bool samples = r.task() == proto::GRPO || r.task() == proto::REJECTION;
  const int64_t sampled = samples ? r.batch().sequences() * r.rl().group_size() : 0;
  const int64_t evaluated = r.evaluate().problems() * std::max<int64_t>(1, r.evaluate().samples());
  const int64_t slots = std::min(r.rl().max_batch(), std::max(sampled, evaluated));
  const int64_t length = r.batch().sequence_length();
  const Context& c = trainer.context();
  auto decoder =
      std::make_unique<Decoder>(trainer.model(), c.backend, c.stream, DecoderOptionsOf(r.rl(), trainer));
  decoder->Reserve(slots, length);
  const std::vector<int32_t> prompt(std::max<int64_t>(1, length - r.rl().max_new()));
  const int64_t at_once = decoder->options().prefill_tokens / std::ssize(prompt) + 1;
  decoder->Prefill(std::vector<std::span<const int32_t>>(std::min(slots, at_once), prompt));
  while (decoder->live() < slots) decoder->Fork(0);
  decoder->Step(std::vector<int32_t>(slots));
  return decoder;
}

// What of the policies that a step compares stays; scoring their tokens comes and goes.
std::unique_ptr<Model> ScoreBeside(const proto::Recipe& r, const Trainer& trainer) {
  const bool kl = r.task() == proto::GRPO && r.rl().kl() != proto::Rl::NO_KL;
  const bool proximal =
      r.task() == proto::GRPO && r.rl().rollout() != proto::Rl::EXACT && r.rl().updates() > 1;
  const Context& c = trainer.context();
  const auto score = [&](const Model& model) {
    Microbatch microbatch(c.backend, model.num_slots());
    const int64_t count = 2 + kScoredTokens / LargestGroups(r, 1)[0].Tokens();
    ScoreGroups(model, c, microbatch, LargestGroups(r, std::min(r.batch().sequences(), count)),
                ScoreOptionsOf(trainer));
  };
  if (proximal) score(trainer.model());
  if (!kl && r.task() != proto::DPO) return nullptr;
  const ModelOptions& trained = trainer.model().options();
  auto reference =
      std::make_unique<Model>(trainer.model_config(), c.backend, c.stream,
                              ModelOptions{.storage = {.act = trained.storage.act, .training = false},
                                           .max_positions = r.batch().sequence_length(),
                                           .mtp = false});
  score(*reference);
  return reference;
}

// The fewest microbatches of a step, or twice as many, with which one rank keeps as much at once as with all.
absl::StatusOr<int64_t> MicrobatchesToThePeak(const Layout& layout, int64_t all) {
  const auto peak = [&](int64_t count) -> absl::StatusOr<double> {
    ASSIGN_OR_RETURN(const Schedule schedule, ScheduleOf(layout, count));
    ASSIGN_OR_RETURN(const Simulation run, Simulate(schedule, {.stages = {{.held_bytes = 1}}}));
    return run.ranks[0].peak_bytes;
  };
  // Of gpipe all are; what the others keep grows no more after a few for each of a rank's stages.
  if (layout.schedule == "gpipe" || IsScheduleFile(layout)) return all;
  all = std::min<int64_t>(all, 64);
  ASSIGN_OR_RETURN(const double most, peak(all));
  // From two on: the second finds what the first one left.
  for (int64_t count = 2; count < all; count *= 2) {
    if (const absl::StatusOr<double> has = peak(count); has.ok() && *has == most) return count;
  }
  return all;
}

// Of `sequences` of a step, or groups, so many as that.
absl::StatusOr<int64_t> SequencesToThePeak(const proto::Recipe& r, const Layout& layout, int64_t sequences) {
  const int64_t each = r.batch().microbatch_sequences();
  if (each == 0) return sequences;
  ASSIGN_OR_RETURN(const int64_t count, MicrobatchesToThePeak(layout, (sequences + each - 1) / each));
  return std::min(sequences, count * each);
}

// One step of reinforcement or preferences, in the order in which memory is taken.
absl::Status StepOnGroups(const proto::Recipe& r, const Layout& layout, Trainer& trainer) {
  const std::unique_ptr<Decoder> decoder = DecodeBeside(r, trainer);
  if (r.task() == proto::REJECTION) return absl::OkStatus();
  const std::unique_ptr<Model> reference = ScoreBeside(r, trainer);
  const int64_t updates = r.task() == proto::GRPO ? r.rl().updates() : 1;
  ASSIGN_OR_RETURN(const int64_t count,
                   SequencesToThePeak(r, layout, (r.batch().sequences() + updates - 1) / updates));
  const std::vector<AnswerGroup> groups = LargestGroups(r, std::max(count, trainer.GroupsAtLeast()));
  GroupBatch batch{.groups = groups, .predictions = 1, .scale = 1};
  batch.entropies = r.task() == proto::GRPO;
  batch.weigh = [](int64_t, int64_t, std::span<const float>, std::span<float>) {};
  return trainer.Step(std::span<const GroupBatch>(&batch, 1), 1).status();
}

// Short sequences in small microbatches may be validated in larger ones than they are trained in.
absl::Status ValidateLargest(int64_t length, Trainer& trainer) {
  std::vector<int32_t> starts{0};
  for (int64_t i = 0; i < Validation::SequencesAtOnce(length); ++i)
    starts.push_back(starts.back() + static_cast<int32_t>(length) + 1);
  return trainer.Evaluate(std::vector<int32_t>(starts.back()), starts).status();
}

}  // namespace

int64_t MostTokens(const proto::Recipe& recipe) {
  return recipe.task() == proto::PRETRAIN ? recipe.batch().sequence_length()
                                          : LargestGroups(recipe, 1)[0].Tokens();
}

absl::StatusOr<int64_t> PredictPeakBytes(const proto::Recipe& recipe, const ModelConfig& config,
                                         const Backend& stands_for) {
  const std::unique_ptr<PhantomBackend> phantom = MakePhantomBackend({.stands_for = &stands_for});
  SoloWorld world;
  ASSIGN_OR_RETURN(const Layout layout, LayoutOf(recipe, config, 1));
  const std::unique_ptr<Stream> stream = phantom->NewStream(StreamKind::kCompute);
  const ModelOptions options = ModelOptionsOf(recipe, config, ComputeOf(recipe, *phantom));
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::New(*world, *phantom, *stream, config, options, layout, TrainConfigOf(recipe)));
  const auto task = recipe.task();
  // What a decoder cannot be made for.
  if (task != proto::PRETRAIN) RETURN_IF_ERROR(CheckRl(recipe.rl(), config));
  if (task == proto::GRPO) RETURN_IF_ERROR(CheckPolicy(recipe.rl()));
  if (task == proto::GRPO || task == proto::DPO || task == proto::REJECTION) {
    RETURN_IF_ERROR(StepOnGroups(recipe, layout, *trainer));
    return phantom->peak_bytes();
  }
  const std::unique_ptr<Decoder> decoder = task == proto::PRETRAIN ? nullptr : DecodeBeside(recipe, *trainer);
  int64_t sequences = recipe.batch().sequences();
  for (const auto& point : recipe.batch().ramp()) {
    sequences = std::max<int64_t>(sequences, point.to_sequences());
  }
  ASSIGN_OR_RETURN(sequences, SequencesToThePeak(recipe, layout, sequences));
  const int64_t each = recipe.batch().microbatch_sequences();
  const int64_t length = recipe.batch().sequence_length();
  Beside teacher;
  if (task == proto::DISTILL) {
    const int64_t at_once = each > 0 ? std::min(sequences, each) : sequences;
    ASSIGN_OR_RETURN(teacher, RunBeside(recipe.distill().teacher(), trainer->context(), options.storage.act,
                                        trainer->config().recompute.max_expert_rows, at_once, length));
  }
  const std::vector<int32_t> tokens(sequences * (length + 1), 0);
  RETURN_IF_ERROR(
      trainer->Step({.tokens = tokens, .sequences = sequences, .length = length, .document_starts = {}})
          .status());
  const bool validates = task == proto::PRETRAIN && !recipe.data().validation().empty();
  if (validates) RETURN_IF_ERROR(ValidateLargest(length, *trainer));
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
  const bool asks = recipe.task() == proto::GRPO || recipe.task() == proto::REJECTION;
  return UnavailableError(
      Concat("the run needs ", HumanBytes(static_cast<double>(needed)), " at its peak, ", backend.Name(),
             " has ", HumanBytes(static_cast<double>(free)), " free; ",
             each > 1 ? Concat("set batch.microbatch_sequences below ", each, ", or ") : std::string(),
             asks ? "set rl.max_batch or rl.max_new lower, or " : "",
             "set recompute { policy: BLOCKS }, optimizer { moments: BF16 }, or more ranks on other ",
             recipe.device() == proto::CUDA ? "GPUs" : "machines"));
}

absl::StatusOr<RankState> StateOf(const proto::Recipe& recipe, const ModelConfig& config,
                                  const Layout& layout, int pipeline, DType act) {
  ASSIGN_OR_RETURN(const Schedule shape, ScheduleShape(layout));
  ASSIGN_OR_RETURN(const std::vector<StageRange> ranges, PlanStages(config, shape.stages));
  const std::vector<int> stages = shape.StagesOf(pipeline);
  int64_t holders = 0;  // pipeline ranks with these stages
  for (int p = 0; p < layout.pipeline; ++p) holders += shape.StagesOf(p) == stages;
  const std::unique_ptr<PhantomBackend> phantom = MakePhantomBackend({});
  const std::unique_ptr<Stream> stream = phantom->NewStream(StreamKind::kCompute);
  const AdamWConfig optimizer = TrainConfigOf(recipe).optimizer;
  const auto of_optimizer =
      static_cast<double>(2 * SizeOf(optimizer.moments) + (optimizer.ema_decay > 0 ? 4 : 0));
  const bool tied = shape.stages > 1 && SharesEmbedding(config);
  RankState state;
  std::set<std::string> counted;  // first and last stage may share a table
  for (const int stage : stages) {
    ModelOptions options{.stage = ranges[stage], .allocate = false};
    if (layout.expert > 1) options.experts.count = config.n_routed_experts / layout.expert;
    const Model model(config, *phantom, *stream, options);
    for (const auto& p : model.parameters().all()) {
      if (!counted.insert(p->name()).second) continue;
      const auto n = static_cast<double>(p->shape().elements());
      (p->spec().expert ? state.experts : state.dense) += n;
      const DType weight = p->spec().keep_f32 ? DType::kF32 : act;
      state.bytes += n * static_cast<double>(SizeOf(weight) + (weight == DType::kF32 ? 0 : 4));
      if (!p->spec().trainable) continue;
      const bool table = tied && p.get() == model.embedding_table();
      const int64_t owners = table              ? std::ssize(shape.TiedHolders()) * layout.batch_shards()
                             : p->spec().expert ? holders * layout.data
                                                : holders * layout.batch_shards();
      state.bytes += n * (4 + of_optimizer / static_cast<double>(owners));
    }
  }
  return state;
}

namespace {

// Whose memory a rank's tensors are in: of a machine, by what its kernel calls this boot, or of a device that
// is the rank's alone.
std::string MemoryOf(int rank, const proto::Recipe& recipe) {
  if (recipe.device() == proto::CUDA) return Concat("the device of rank ", rank);
  return ReadFile("/proc/sys/kernel/random/boot_id", 4096).value_or("a machine");
}

// What a rank keeps of its share of a step beside its state, as one rank alone would of that much. 0, which
// is too little, for ranks of several stages and for tasks that sample or compare answers.
double ActivationsOf(const proto::Recipe& recipe, const ModelConfig& config, const Layout& layout,
                     const Backend& backend) {
  if (layout.pipeline > 1 || recipe.task() != proto::PRETRAIN) return 0;
  proto::Recipe share = recipe;
  const int64_t shards = layout.batch_shards();
  share.mutable_batch()->set_sequences(std::max<int64_t>(1, recipe.batch().sequences() / shards));
  for (auto& point : *share.mutable_batch()->mutable_ramp())
    point.set_to_sequences(std::max<int64_t>(1, point.to_sequences() / shards));
  share.mutable_data()->clear_validation();  // which the ranks share too
  share.mutable_parallel()->set_data(1);
  share.mutable_parallel()->set_expert(1);
  const absl::StatusOr<int64_t> peak = PredictPeakBytes(share, config, backend);
  const absl::StatusOr<RankState> state = StateOf(share, config, {}, 0, ComputeOf(recipe, backend));
  return peak.ok() && state.ok() ? std::max(0.0, static_cast<double>(*peak) - state->bytes) : 0;
}

}  // namespace

absl::Status CheckStateMemory(const proto::Recipe& recipe, const ModelConfig& config, const Layout& layout,
                              World& world, const Backend& backend) {
  const int rank = world.rank();
  const absl::StatusOr<RankState> state =
      StateOf(recipe, config, layout, CoordinatesOf(layout, rank).pipeline, ComputeOf(recipe, backend));
  HostTalk talk(world);
  RETURN_IF_ERROR(talk.Agree(state.status()));
  // Rank 0 gathers the parts of a model that it samples from.
  const bool gathers = rank == 0 && recipe.sample().every_steps() > 0 && layout.pipeline * layout.expert > 1;
  const double sampled =
      gathers ? static_cast<double>(CostOf(config, 1).parameters * SizeOf(ComputeOf(recipe, backend))) : 0;
  const std::string memory = MemoryOf(rank, recipe);
  // The same for all, and it takes a while.
  const double mine = rank == 0 ? ActivationsOf(recipe, config, layout, backend) : 0;
  ASSIGN_OR_RETURN(const std::vector<std::string> told,
                   talk.Gather(Concat(mine, " ", memory, "\n", state->bytes + sampled)));
  const double activations = std::strtod(told[0].c_str(), nullptr);
  double needed = 0;
  int sharing = 0;
  for (const std::string& text : told) {
    const size_t line = text.rfind('\n');
    const size_t blank = text.find(' ');
    if (text.substr(blank + 1, line - blank - 1) != memory) continue;
    needed += std::strtod(text.c_str() + line + 1, nullptr) + activations;
    ++sharing;
  }
  const auto free = static_cast<double>(backend.free_bytes());
  if (free == 0 || needed <= free) return talk.Agree(absl::OkStatus());  // 0: not known
  const std::string whose =
      sharing == 1 ? Concat("rank ", rank, " of ", ToText(layout), " needs ")
                   : Concat("the ", sharing, " ranks of one machine (", ToText(layout), " in all) need ");
  return talk.Agree(UnavailableError(
      Concat(whose, HumanBytes(needed), " for weights, gradients and moments",
             activations > 0 ? ", activations included, " : " alone, ", backend.Name(), " has ",
             HumanBytes(free), " free; ", activations > 0 ? "set batch.microbatch_sequences lower, " : "set ",
             "optimizer { moments: BF16 }, or use more ",
             sharing == 1 ? "ranks (parallel.pipeline, parallel.expert)" : "machines")));
}

}  // namespace moebius
