// Steps on groups of answers: no layout and no cut into microbatches changes what is learned from a batch.
#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "core/backend/device.h"
#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "optim/trainer.h"
#include "parallel/node_map.h"
#include "rl/loop/policy_batch.h"
#include "tests/optim/training.h"
#include "tests/rl/loop/samples.h"

namespace moebius {
namespace {

ModelConfig MoeConfig() {
  ModelConfig c = TinyConfig();
  c.num_hidden_layers = 4;
  return c;
}

ModelConfig DenseConfig() {
  ModelConfig c;
  c.model_type = "qwen3";
  c.attention = AttentionKind::kGqa;
  c.vocab_size = 40;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.num_hidden_layers = 4;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 4;
  c.qk_norm = true;
  c.max_position_embeddings = 64;
  return c;
}

// What decides the weights of tokens.
enum class Weighing {
  kKnown,  // the samples, before the model runs
  kGspo,   // a callback that sees the whole of each answer: ratios to what its tokens had
};

struct GroupSetup {
  ModelConfig model;
  Weighing weighing = Weighing::kKnown;
  int64_t groups = 16;
  uint64_t seed = 1;
  bool replays = false;  // experts that have nothing to do with what the router wants
  int64_t flat = 0;      // of the groups: equal rewards, and no term but the advantage's
};

// The same on all ranks.
struct Outcome {
  std::map<std::string, std::vector<float>> gradients;  // by checkpoint tensor
  StepMetrics metrics;
  std::vector<double> sums;  // loss, kl, ratio, tokens, clipped tokens; of all ranks
  int64_t microbatches = 0;
};

std::vector<RolloutGroup> Samples(int64_t groups, int64_t flat) {
  std::vector<std::vector<std::optional<double>>> rewards;
  for (int64_t g = 0; g < groups; ++g) {
    rewards.push_back({1, 0});
    for (int64_t a = 0; a < g % 3; ++a) rewards.back().push_back(0.5);
    if (g < flat) std::fill(rewards.back().begin(), rewards.back().end(), 1);
  }
  return MakeSamples(rewards, 40);
}

void AddRoutes(const ModelConfig& model, std::vector<RolloutGroup>& groups) {
  const RandomStream random(7, "made-up routes");
  uint64_t next = 0;
  const int64_t experts = model.n_routed_experts, layers = model.NumMoe(model.num_hidden_layers);
  CHECK_EQ(model.num_experts_per_tok, 2);
  const auto routes = [&](int64_t tokens) {
    std::vector<Route> out;
    for (int64_t i = 0; i < tokens * layers; ++i) {
      const uint64_t first = random.Below(next++, experts), step = 1 + random.Below(next++, experts - 1);
      out.push_back(static_cast<Route>(first));
      out.push_back(static_cast<Route>((first + step) % experts));
    }
    return out;
  };
  for (RolloutGroup& group : groups) {
    group.prompt_routes = routes(std::ssize(group.prompt));
    for (RolloutSample& sample : group.samples) sample.routes = routes(std::ssize(sample.tokens) - 1);
  }
}

PolicyOptions OptionsOf(Weighing weighing, bool replays) {
  PolicyOptions options;
  options.replays_routes = replays;
  options.objective.kl = KlKind::kTrue;
  options.objective.kl_coefficient = 0.1;
  options.entropy_coefficient = 0.01;
  options.temperature = 0.8;
  if (weighing == Weighing::kKnown) return options;
  options.exact = false;
  options.updates = 2;
  options.objective.surrogate = Surrogate::kGspo;
  options.objective.normaliser = Normaliser::kAnswers;
  options.objective.clip_low = options.objective.clip_high = 1;
  options.objective.correct_mismatch = true;
  return options;
}

// The owned parts of all ranks' gradients.
class GatheredGradients {
 public:
  void Add(const Trainer& trainer) {
    const Context& context = trainer.context();
    for (const AdamWOptimizer::State& state : trainer.optimizer().states()) {
      const ParameterSlice& slice = state.slice;
      std::vector<float> values(slice.count);
      context.backend.CopyToHost(context.stream, slice.Of(slice.parameter->grad()), values.data());
      context.stream.Synchronize();
      std::lock_guard lock(mutex_);
      for (const Piece& piece : slice.parameter->spec().pieces) {
        std::vector<float>& to = gradients[piece.name];
        to.resize(piece.shape.elements());
        const int64_t from = std::max(slice.offset, piece.offset);
        const int64_t end = std::min(slice.offset + slice.count, piece.offset + piece.shape.elements());
        for (int64_t i = from; i < end; ++i) to[i - piece.offset] = values[i - slice.offset];
      }
    }
  }

  std::map<std::string, std::vector<float>> gradients;

 private:
  std::mutex mutex_;
};

absl::Status RunRank(World& world, const GroupSetup& setup, const Layout& layout, int64_t each, bool steps,
                     GatheredGradients& gathered, Outcome& out) {
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Backend> backend,
      MakeBackend(
          {.threads = 1, .rank = world.rank(), .host_rows = HostTouchesRows(layout, world.node_of_rank())}));
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  ModelOptions options;
  options.storage = {.act = DType::kF32, .training = true};
  options.max_positions = 16;
  TrainConfig train;
  train.microbatch_sequences = each;
  train.mtp_loss_weight = 0;
  train.schedule.lr = 1e-2;
  train.sequence_loss = train.auxiliary_loss = 0.1;
  train.router_z_loss = 0.01;
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::New(world, *backend, *stream, setup.model, options, layout, train));
  WorldGuard guard(&world);
  for (Model* model : trainer->stages().models())
    model->parameters().Initialize(*backend, *stream, setup.seed, 0.1f);
  trainer->optimizer().ResetEma(trainer->context());
  const bool known = setup.weighing == Weighing::kKnown;
  std::vector<RolloutGroup> samples = Samples(known ? setup.groups : 2 * setup.groups, setup.flat);
  if (setup.replays) AddRoutes(setup.model, samples);
  PolicyOptions policy = OptionsOf(setup.weighing, setup.replays);
  if (setup.flat > 0) policy.entropy_coefficient = policy.objective.kl_coefficient = 0;
  PolicyBatch batch(policy, samples, setup.flat > 0 ? trainer->GroupsAtLeast() : 1);
  StepMetrics metrics;
  if (steps) {
    ASSIGN_OR_RETURN(metrics, trainer->Step(batch.updates(), 5));
    EXPECT_EQ(trainer->state().step, 1);
    EXPECT_EQ(trainer->state().updates, std::ssize(batch.updates()));
    EXPECT_EQ(trainer->state().sequences, 5u);
  } else {
    const GroupBatch& update = batch.updates().back();
    if (setup.flat == 0) {
      EXPECT_EQ(std::ssize(update.groups), setup.groups);
    }
    ASSIGN_OR_RETURN(metrics, trainer->ForwardBackward(update));
    gathered.Add(*trainer);
  }
  const PolicySums& s = batch.sums();
  std::vector<double> sums = {s.loss, s.kl, s.ratio, s.tokens, s.clipped_low + s.clipped_high};
  RETURN_IF_ERROR(trainer->mesh().Sum({&sums[0], &sums[1], &sums[2], &sums[3], &sums[4]}));
  const int64_t microbatches = trainer->schedule().microbatches;
  RETURN_IF_ERROR(trainer->Close());
  guard.Dismiss();
  if (world.rank() == 0)
    out = {.gradients = {}, .metrics = metrics, .sums = sums, .microbatches = microbatches};
  return absl::OkStatus();
}

Outcome RunOn(const GroupSetup& setup, const Layout& layout, int64_t each, bool steps = false) {
  GatheredGradients gathered;
  Outcome out;
  const absl::Status status = RunRanks(layout.ranks(), {}, [&](World& world) {
    return RunRank(world, setup, layout, each, steps, gathered, out);
  });
  EXPECT_TRUE(status.ok()) << status;
  out.gradients = std::move(gathered.gradients);
  return out;
}

double Norm(const std::map<std::string, std::vector<float>>& gradients) {
  double sum = 0;
  for (const auto& [name, values] : gradients) {
    for (const double v : values) sum += v * v;
  }
  return std::sqrt(sum);
}

void ExpectEqual(const Outcome& got, const Outcome& want) {
  const double norm = Norm(want.gradients);
  ASSERT_GT(norm, 0);
  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  double squares = 0;
  for (const auto& [name, values] : want.gradients) {
    const std::vector<float>& mine = got.gradients.at(name);
    ASSERT_EQ(mine.size(), values.size()) << name;
    for (size_t i = 0; i < values.size(); ++i) {
      const double d = static_cast<double>(mine[i]) - values[i];
      squares += d * d;
      ASSERT_NEAR(mine[i], values[i], 1e-6 * norm) << name << " " << i;
    }
  }
  EXPECT_LE(std::sqrt(squares), 2e-6 * norm);
  EXPECT_NEAR(got.metrics.grad_norm, norm, 1e-6 * norm);
  EXPECT_NEAR(got.metrics.loss, want.metrics.loss, 1e-6 * want.metrics.loss);
  EXPECT_NEAR(got.metrics.entropy, want.metrics.entropy, 1e-6 * want.metrics.entropy);
  EXPECT_EQ(got.metrics.expert_counts, want.metrics.expert_counts);
  EXPECT_NEAR(got.metrics.balance_loss, want.metrics.balance_loss, 1e-6 * want.metrics.balance_loss);
  EXPECT_NEAR(got.metrics.z_loss, want.metrics.z_loss, 1e-6 * want.metrics.z_loss);
  EXPECT_EQ(got.metrics.routes_given, want.metrics.routes_given);
  EXPECT_EQ(got.metrics.routes_changed, want.metrics.routes_changed);
  for (size_t i = 0; i < want.sums.size(); ++i) {
    EXPECT_NEAR(got.sums[i], want.sums[i], 2e-6 * std::abs(want.sums[i]) + 1e-7) << "sum " << i;
  }
}

struct GroupCase {
  const char* model;
  Weighing weighing;
  bool replays = false;
};

class TrainerGroupTest : public testing::TestWithParam<GroupCase> {
 protected:
  static GroupSetup SetupOf(int64_t groups = 16) {
    const GroupCase& c = GetParam();
    return {.model = std::string(c.model) == "dense" ? DenseConfig() : MoeConfig(),
            .weighing = c.weighing,
            .groups = groups,
            .replays = c.replays};
  }
};

TEST_P(TrainerGroupTest, NeitherRanksNorMicrobatchesChangeTheGradients) {
  const GroupSetup setup = SetupOf();
  const Outcome want = RunOn(setup, {}, 0);
  EXPECT_EQ(want.microbatches, 1);
  EXPECT_GT(want.sums[3], 100);
  if (setup.weighing == Weighing::kGspo) {
    EXPECT_GT(std::abs(want.sums[2] / want.sums[3] - 1), 0.05) << "ratios that say something";
  }
  EXPECT_EQ(want.metrics.routes_changed > 0, setup.replays);
  const bool experts = setup.model.n_routed_experts > 0;
  std::vector<Layout> layouts = {{}, {.data = 2}, {.data = 4}, {.pipeline = 2}, {.pipeline = 2, .data = 2}};
  if (experts) {
    layouts.push_back({.expert = 2});
    layouts.push_back({.data = 2, .expert = 2});
    layouts.push_back({.pipeline = 2, .expert = 2});
  }
  for (const Layout& layout : layouts) {
    for (const int64_t microbatches : {1, 2, 4}) {
      SCOPED_TRACE(Concat(ToText(layout), ", microbatches ", microbatches));
      const Outcome got = RunOn(setup, layout, 16 / layout.batch_shards() / microbatches);
      EXPECT_EQ(got.microbatches, std::max<int64_t>(microbatches, layout.pipeline));
      ExpectEqual(got, want);
    }
  }
}

// Shares that do not come out even, down to one group for each microbatch.
TEST_P(TrainerGroupTest, UnevenSharesChangeNothing) {
  for (const Layout& layout : {Layout{.data = 2}, Layout{.data = 4}, Layout{.pipeline = 2, .data = 2}}) {
    const int64_t least = layout.batch_shards() * layout.pipeline;
    for (const int64_t groups : {least, least + 1, least + 3}) {
      SCOPED_TRACE(Concat(ToText(layout), ", groups ", groups));
      const GroupSetup setup = SetupOf(groups);
      const Outcome want = RunOn(setup, {}, 0);
      for (const int64_t each : {0, 1, 2}) ExpectEqual(RunOn(setup, layout, each), want);
    }
  }
}

// Ranks and stages need a group each; those that have nothing to teach change nothing there.
TEST(FilledBatchTest, GroupsThatFillItChangeNothing) {
  for (const ModelConfig& model : {DenseConfig(), MoeConfig()}) {
    const GroupSetup setup{.model = model, .groups = 8, .flat = 7};
    const Outcome want = RunOn(setup, {}, 0);
    std::vector<Layout> layouts = {{.data = 2}, {.data = 8}, {.pipeline = 2, .data = 2}};
    if (model.n_routed_experts > 0) {
      EXPECT_GT(want.metrics.balance_loss, 0);
      layouts.push_back({.expert = 2});
    }
    for (const Layout& layout : layouts) {
      SCOPED_TRACE(ToText(layout));
      ExpectEqual(RunOn(setup, layout, 0), want);
    }
  }
}

TEST_P(TrainerGroupTest, StepsUpdateOnceABatch) {
  const GroupSetup setup = SetupOf();
  const Outcome want = RunOn(setup, {}, 0, true);
  EXPECT_EQ(want.metrics.step, 1);
  for (const Layout& layout : {Layout{.data = 2}, Layout{.pipeline = 2}}) {
    const Outcome got = RunOn(setup, layout, 2, true);
    EXPECT_NEAR(got.metrics.loss, want.metrics.loss, 1e-5 * want.metrics.loss) << ToText(layout);
    EXPECT_NEAR(got.metrics.grad_norm, want.metrics.grad_norm, 1e-4 * want.metrics.grad_norm);
    EXPECT_EQ(got.metrics.tokens, want.metrics.tokens);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, TrainerGroupTest,
    testing::Values(GroupCase{"dense", Weighing::kKnown}, GroupCase{"dense", Weighing::kGspo},
                    GroupCase{"moe", Weighing::kKnown}, GroupCase{"moe", Weighing::kGspo},
                    GroupCase{"moe", Weighing::kGspo, true}),
    [](const auto& info) {
      return Concat(info.param.model, info.param.weighing == Weighing::kKnown ? "_known" : "_gspo",
                    info.param.replays ? "_replayed" : "");
    });

absl::StatusOr<int64_t> LeastOf(const Layout& layout) {
  int64_t least = 0;
  RETURN_IF_ERROR(RunRanks(layout.ranks(), {}, [&](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeBackend({.threads = 1}));
    const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
    ModelOptions options;
    options.storage = {.act = DType::kF32, .training = true};
    ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                     Trainer::New(world, *backend, *stream, DenseConfig(), options, layout, {}));
    WorldGuard guard(&world);
    if (world.rank() == 0) least = trainer->GroupsAtLeast();
    RETURN_IF_ERROR(trainer->Close());
    guard.Dismiss();
    return absl::OkStatus();
  }));
  return least;
}

TEST(TrainerGroupsAtLeast, IsAGroupForEachMicrobatchOfEachShard) {
  EXPECT_EQ(*LeastOf({}), 1);
  EXPECT_EQ(*LeastOf({.data = 4}), 4);
  EXPECT_EQ(*LeastOf({.pipeline = 2, .data = 2}), 4);
  EXPECT_EQ(*LeastOf({.pipeline = 4}), 4);
  EXPECT_EQ(*LeastOf({.pipeline = 2, .data = 2, .schedule = "dualpipev"}), 8) << "fills from both ends";
}

// Some schedules want even numbers of microbatches, or equal rounds of them; batches have what signal leaves.
TEST(TrainerGroupsAtLeast, EveryScheduleRunsAnyNumberOfGroupsFromThereOn) {
  for (const char* schedule : {"gpipe", "1f1b", "interleaved", "zb_h1", "zbv", "dualpipe", "dualpipev"}) {
    const Layout layout{.pipeline = 2, .schedule = schedule};
    const int64_t least = *LeastOf(layout);
    for (int64_t groups = least; groups < least + 4; ++groups) {
      SCOPED_TRACE(Concat(schedule, ", groups ", groups));
      const GroupSetup setup{.model = DenseConfig(), .groups = groups};
      ExpectEqual(RunOn(setup, layout, 1), RunOn(setup, {}, 0));
    }
  }
}

// Groups whose answers have fixed weights: an update that moves the model, and one of bad numbers.
std::vector<AnswerGroup> PlainGroups() {
  std::vector<AnswerGroup> groups;
  for (int32_t g = 0; g < 4; ++g) {
    groups.push_back({.prompt = {1 + g, 2}, .answers = {{.tokens = {3, 4 + g, 5}, .weights = {1, 1, 1}}}});
  }
  return groups;
}

TEST(TrainerGroupSteps, AreSkippedAndCountedOnlyWhereNoneOfTheirUpdatesMovedTheModel) {
  const std::vector<AnswerGroup> groups = PlainGroups();
  const GroupBatch good{.groups = groups, .predictions = 12, .scale = 1.0 / 12};
  GroupBatch bad = good;
  bad.scale = NAN;
  TrainConfig config;
  config.schedule.lr = 1e-2;
  Training t(config);
  const TrainerState& state = t.trainer->state();
  const auto step = [&](const std::vector<GroupBatch>& updates) {
    absl::StatusOr<StepMetrics> m = t.trainer->Step(updates, 4);
    EXPECT_TRUE(m.ok()) << m.status();
    return *m;
  };
  const std::vector<float> first = t.Weights();
  StepMetrics m = step({bad, bad, bad});
  EXPECT_TRUE(m.skipped);
  EXPECT_EQ(m.skipped_updates, 3);
  EXPECT_TRUE(std::isnan(m.grad_norm));
  EXPECT_EQ(state.skipped_steps, 1);
  EXPECT_EQ(state.bad_in_a_row, 1) << "a step, whatever the number of its updates";
  EXPECT_EQ(t.Weights(), first);
  step({bad, bad});
  EXPECT_EQ(state.bad_in_a_row, 2);
  EXPECT_EQ(state.updates, 0);

  for (const std::vector<GroupBatch>& updates :
       {std::vector<GroupBatch>{bad, good}, std::vector<GroupBatch>{good, bad}}) {
    const std::vector<float> before = t.Weights();
    m = step(updates);
    EXPECT_FALSE(m.skipped) << "one of two moved the weights";
    EXPECT_EQ(m.skipped_updates, 1);
    EXPECT_TRUE(std::isfinite(m.loss) && m.grad_norm > 0) << m.loss << " " << m.grad_norm;
    EXPECT_NE(t.Weights(), before);
    EXPECT_EQ(state.bad_in_a_row, 0);
    EXPECT_EQ(state.skipped_steps, 2);
  }
  EXPECT_EQ(state.updates, 2);
  EXPECT_EQ(state.step, 4);
}

using TrainerGroupsDeathTest = testing::Test;

TEST_F(TrainerGroupsDeathTest, FewerGroupsAreACallersError) {
  const GroupBatch none;
  Training t(TrainConfig{});
  EXPECT_DEATH((void)t.trainer->ForwardBackward(none), "");
}

}  // namespace
}  // namespace moebius
