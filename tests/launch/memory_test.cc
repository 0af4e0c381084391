// What a run is predicted to take against what its trainer then holds.
#include "launch/train/memory.h"

#include <algorithm>
#include <set>
#include <vector>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/resolve_model.h"
#include "launch/train/settings.h"
#include "launch/train/setup.h"
#include "launch/train/validation.h"
#include "parallel/comm/solo_world.h"

namespace moebius {
namespace {

struct Prepared {
  Recipe recipe;
  ModelConfig config;
};

Prepared Load(const std::vector<std::string>& sets) {
  absl::StatusOr<Recipe> recipe = Recipe::Load(MOEBIUS_SOURCE_DIR "/recipes/quickstart.textproto", sets);
  CHECK(recipe.ok()) << std::string(recipe.status().message());
  absl::StatusOr<ModelConfig> config = ResolveModel(*recipe);
  CHECK(config.ok()) << std::string(config.status().message());
  return {*std::move(recipe), *std::move(config)};
}

int64_t HeldBytes(const Prepared& run) {
  SoloWorld world;
  absl::StatusOr<Training> training = BuildTraining(run.recipe.proto(), run.config, *world, 1);
  CHECK(training.ok()) << std::string(training.status().message());
  training->trainer->InitializeWeights(1);
  const auto& batch = run.recipe.proto().batch();
  const std::vector<int32_t> tokens(batch.sequences() * (batch.sequence_length() + 1), 7);
  const auto step = [&] {
    const absl::StatusOr<StepMetrics> m = training->trainer->Step({.tokens = tokens,
                                                                   .sequences = batch.sequences(),
                                                                   .length = batch.sequence_length(),
                                                                   .document_starts = {}});
    CHECK(m.ok()) << std::string(m.status().message());
    return m->peak_bytes;
  };
  int64_t held = step();
  if (!run.recipe.proto().data().validation().empty()) {
    std::vector<int32_t> starts{0};
    for (int64_t i = 0; i < Validation::SequencesAtOnce(batch.sequence_length()); ++i)
      starts.push_back(starts.back() + static_cast<int32_t>(batch.sequence_length()) + 1);
    CHECK(training->trainer->Evaluate(std::vector<int32_t>(starts.back(), 7), starts).ok());
    held = step();
  }
  CHECK(training->trainer->Close().ok());
  return held;
}

const std::vector<std::string> kNoValidation = {"data.validation=", "validate.every_steps=0"};

TEST(MemoryTest, ThePredictionIsWhatTheTrainerHoldsAndTheRestOfItsBlocks) {
  const std::vector<std::vector<std::string>> cases = {
      {},
      {"batch.microbatch_sequences=2"},
      {"recompute.policy=BLOCKS", "precision.compute=BF16"},
      {"parallel.schedule=gpipe", "batch.microbatch_sequences=1"},  // all of them at once
      {"parallel.schedule=zbv", "batch.microbatch_sequences=1", "recompute.policy=BLOCKS"},
      {"optimizer.moments=BF16", "batch.sequence_length=512", "model.max_position_embeddings=512"}};
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  for (std::vector<std::string> sets : cases) {
    sets.insert(sets.end(), kNoValidation.begin(), kNoValidation.end());
    const Prepared run = Load(sets);
    const absl::StatusOr<int64_t> predicted = PredictPeakBytes(run.recipe.proto(), run.config, *cpu);
    ASSERT_TRUE(predicted.ok()) << std::string(predicted.status().message());
    const int64_t held = HeldBytes(run);
    // Four arenas grow by blocks of 16 MiB; a microbatch's own copies of its tokens are not counted as held.
    EXPECT_GE(*predicted, held) << (sets.empty() ? "" : sets[0]);
    EXPECT_LE(*predicted, held + 5 * (int64_t{16} << 20)) << (sets.empty() ? "" : sets[0]);
  }
}

// Of blocks that run again nothing stays, the rows that other ranks have sent included.
TEST(MemoryTest, BlocksLetGoOfTheRowsThatCameForTheirExperts) {
  const auto held = [](const char* policy) {
    const Prepared run = Load({"data.validation=", "validate.every_steps=0", "parallel.expert=2",
                               "model.num_hidden_layers=16", "recompute.policy=" + std::string(policy)});
    std::vector<int64_t> bytes(2);
    const absl::Status status = RunRanks(2, {}, [&](World& world) -> absl::Status {
      ASSIGN_OR_RETURN(Training training, BuildTraining(run.recipe.proto(), run.config, world, 1));
      training.trainer->InitializeWeights(1);
      const auto& batch = run.recipe.proto().batch();
      const std::vector<int32_t> tokens(batch.sequences() * (batch.sequence_length() + 1), 7);
      RETURN_IF_ERROR(training.trainer
                          ->Step({.tokens = tokens,
                                  .sequences = batch.sequences(),
                                  .length = batch.sequence_length(),
                                  .document_starts = {}})
                          .status());
      bytes[world.rank()] = training.trainer->stages().pool_bytes();
      return training.trainer->Close();
    });
    CHECK(status.ok()) << status;
    return std::max(bytes[0], bytes[1]);
  };
  EXPECT_LT(2 * held("BLOCKS"), held("NONE"));
}

TEST(MemoryTest, ValidationInLargerMicrobatchesThanThoseOfTrainingCounts) {
  std::vector<std::string> sets = {"batch.sequences=1", "batch.sequence_length=16"};
  const Prepared run = Load(sets);
  sets.insert(sets.end(), kNoValidation.begin(), kNoValidation.end());
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const auto predict = [&cpu](const Prepared& what) {
    const absl::StatusOr<int64_t> predicted = PredictPeakBytes(what.recipe.proto(), what.config, *cpu);
    CHECK(predicted.ok()) << std::string(predicted.status().message());
    return *predicted;
  };
  EXPECT_GE(predict(run), HeldBytes(run));
  // The inputs of three layers of 4352 tokens of 192 numbers.
  EXPECT_GT(predict(run), predict(Load(sets)) + int64_t{3} * 4352 * 192 * 2);
}

// A step on groups of answers is not one on rows of batch.sequence_length.
constexpr char kAnswers[] = R"(
task: GRPO
model {
  model_type: "qwen3" hidden_size: 64 intermediate_size: 128 num_hidden_layers: 2 num_attention_heads: 4
  num_key_value_heads: 4 head_dim: 16 max_position_embeddings: 256
}
tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 3 }
batch { sequences: 16 sequence_length: 128 }
rl { group_size: 16 max_new: 96 max_batch: 16 }
precision { compute: FP32 }
)";

Prepared LoadAnswers(const std::vector<std::string>& sets) {
  absl::StatusOr<Recipe> recipe = Recipe::FromText(kAnswers, "answers.textproto", sets);
  CHECK(recipe.ok()) << std::string(recipe.status().message());
  absl::StatusOr<ModelConfig> config = ResolveModel(*recipe);
  CHECK(config.ok()) << std::string(config.status().message());
  return {*std::move(recipe), *std::move(config)};
}

int64_t Predict(const Prepared& run) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1, .batch_invariant = true});
  const absl::StatusOr<int64_t> predicted = PredictPeakBytes(run.recipe.proto(), run.config, *cpu);
  CHECK(predicted.ok()) << std::string(predicted.status().message());
  return *predicted;
}

// Of `count` prompts with answers that are as long as they can be.
int64_t HeldForGroups(const Prepared& run, int64_t count, int64_t prompt, int64_t answers, int64_t tokens) {
  SoloWorld world;
  absl::StatusOr<Training> training = BuildTraining(run.recipe.proto(), run.config, *world, 1);
  CHECK(training.ok()) << std::string(training.status().message());
  training->trainer->InitializeWeights(1);
  AnswerGroup group{.prompt = std::vector<int32_t>(prompt, 1), .answers = {}};
  group.answers.assign(answers, {.tokens = std::vector<int32_t>(tokens, 2), .weights = {}});
  const std::vector<AnswerGroup> groups(count, group);
  GroupBatch batch{.groups = groups, .predictions = count * answers * tokens, .scale = 1e-4};
  batch.entropies = run.recipe.proto().task() == proto::GRPO;
  const absl::StatusOr<StepMetrics> m =
      training->trainer->Step(std::span<const GroupBatch>(&batch, 1), count);
  CHECK(m.ok()) << std::string(m.status().message());
  CHECK(training->trainer->Close().ok());
  return m->peak_bytes;
}

constexpr int64_t kSlack = 8 * (int64_t{16} << 20);  // blocks of arenas, the decoder's among them

TEST(MemoryTest, OfReinforcementGroupsOfWholeAnswersCount) {
  // Keys and values of 16 sequences of 128 tokens in two layers.
  const int64_t caches = int64_t{2} * 16 * 128 * 2 * 64 * 4;
  for (const std::vector<std::string>& sets :
       {std::vector<std::string>{}, {"batch.microbatch_sequences=2"}, {"rl.updates=4"}}) {
    SCOPED_TRACE(sets.empty() ? "as it is" : sets[0]);
    const Prepared run = LoadAnswers(sets);
    const int64_t updates = run.recipe.proto().rl().updates();
    const int64_t held = HeldForGroups(run, 16 / updates, 32, 16, 96), predicted = Predict(run);
    EXPECT_GE(predicted, held + caches);
    EXPECT_LE(predicted, held + caches + kSlack);
  }
}

TEST(MemoryTest, OfPreferencesBothAnswersAndTheReferenceCount) {
  const Prepared run = LoadAnswers({"task=DPO", "dpo.data=pairs.jsonl", "batch.sequences=128"});
  const int64_t held = HeldForGroups(run, 128, 1, 2, 127), predicted = Predict(run);
  EXPECT_GE(predicted, held);
  EXPECT_LE(predicted, held + kSlack);
}

TEST(MemoryTest, WhatStandsBesideReinforcementCounts) {
  const std::vector<std::string> wide = {"model.hidden_size=512", "model.intermediate_size=2048",
                                         "batch.sequences=1"};
  const auto with = [&wide](const char* more) {
    std::vector<std::string> sets = wide;
    sets.emplace_back(more);
    return Predict(LoadAnswers(sets));
  };
  const int64_t alone = Predict(LoadAnswers(wide));
  // Two layers of three 512 x 2048 matrices in fp32, without a gradient or moments.
  EXPECT_GT(with("rl.kl=K3"), alone + int64_t{2} * 3 * 512 * 2048 * 4) << "a reference policy";
  // An evaluation of 500 problems decodes as many at once as it may.
  EXPECT_EQ(with("rl.max_batch=512"), with("rl.max_batch=500")) << "and no more than it asks";
  EXPECT_GT(with("rl.max_batch=500"), alone + int64_t{400} * 128 * 2 * 2 * 64 * 4) << "more caches";
}

TEST(MemoryTest, ARunThatDoesNotFitIsRefusedWithTheNumbersBeforeAnythingIsAllocated) {
  const Prepared run = Load({"batch.sequences=32768"});
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const absl::Status status = CheckMemory(run.recipe.proto(), run.config, *cpu);
  EXPECT_EQ(ExitCode(status), kExitUnavailable);
  EXPECT_NE(status.message().find(" at its peak, cpu"), std::string::npos) << std::string(status.message());
  EXPECT_NE(status.message().find("batch.microbatch_sequences"), std::string::npos);
}

// Of the pipeline ranks of a layout: bytes of the model's state in fp32.
std::vector<double> StatesOf(const Prepared& run, const Layout& layout) {
  std::vector<double> out;
  for (int rank = 0; rank < layout.pipeline; ++rank) {
    const absl::StatusOr<RankState> state =
        StateOf(run.recipe.proto(), run.config, layout, rank, DType::kF32);
    CHECK(state.ok()) << std::string(state.status().message());
    out.push_back(state->bytes);
  }
  return out;
}

TEST(MemoryTest, TheStateOfARankIsItsPartOfTheModel) {
  const Prepared run = Load({"mtp.loss_weight=0", "model.num_nextn_predict_layers=0"});
  const double whole = StatesOf(run, {})[0];
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = cpu->NewStream(StreamKind::kCompute);
  // Weights, gradients and two moments; selection biases have no more than the first.
  const auto elements =
      static_cast<double>(Model(run.config, *cpu, *stream, ModelOptions{}).parameters().elements());
  EXPECT_GT(whole, 16 * elements - 4096);
  EXPECT_LE(whole, 16 * elements);
  // Every stage has its own parameters.
  const std::vector<double> stages = StatesOf(run, {.pipeline = 2});
  EXPECT_LT(stages[0], whole);
  EXPECT_LT(stages[1], whole);
  EXPECT_NEAR(stages[0] + stages[1], whole, 1);
  // Two replicas: all weights and gradients, half of the moments.
  EXPECT_NEAR(StatesOf(run, {.data = 2})[0], whole * 3 / 4, 4096);
  // Half of the experts with all of their moments; the rest is as with two replicas.
  const absl::StatusOr<RankState> all = StateOf(run.recipe.proto(), run.config, {}, 0, DType::kF32);
  EXPECT_NEAR(StatesOf(run, {.expert = 2})[0], all->dense * 12 + all->experts * 8, 4096);
}

// With a table that both stages have, and with two copies of every stage.
TEST(MemoryTest, TheStateOfARankIsNotMoreThanItsTrainerHolds) {
  for (const auto& [schedule, ranks] : {std::pair("1f1b", 2), {"1f1b", 3}, {"dualpipe", 2}}) {
    const Prepared r =
        Load({"precision.compute=BF16", Concat("parallel.pipeline=", ranks), "batch.microbatch_sequences=1",
              "model.vocab_size=32768", Concat("parallel.schedule=", schedule)});
    const absl::Status status = RunRanks(ranks, {}, [&](World& world) -> absl::Status {
      ASSIGN_OR_RETURN(Training t, BuildTraining(r.recipe.proto(), r.config, world, 1));
      const Layout& layout = t.trainer->mesh().layout();
      ASSIGN_OR_RETURN(const RankState state,
                       StateOf(r.recipe.proto(), r.config, layout, world.rank(), DType::kBF16));
      double held = static_cast<double>(t.trainer->optimizer().bytes());
      std::set<const void*> seen;
      for (Model* model : t.trainer->stages().models()) {
        for (const auto& p : model->parameters().all()) {
          for (const TensorView& view : {p->weight(), p->master(), p->grad()}) {
            if (view && seen.insert(view.data).second) held += static_cast<double>(view.bytes());
          }
        }
      }
      EXPECT_LE(state.bytes, held + 4096) << schedule << " rank " << world.rank();
      EXPECT_GT(state.bytes, held * 0.98) << schedule << " rank " << world.rank();
      return t.trainer->Close();
    });
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(MemoryTest, ARankWhoseStateDoesNotFitIsRefusedWithTheNumbers) {
  const Prepared run = Load({"model.n_routed_experts=32768", "model.moe_intermediate_size=8192"});
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const absl::Status status = RunRanks(2, {}, [&](World& world) {
    return CheckStateMemory(run.recipe.proto(), run.config, {.data = 2}, world, *cpu);
  });
  EXPECT_EQ(ExitCode(status), kExitUnavailable);
  EXPECT_NE(status.message().find("weights, gradients and moments, activations included, cpu"),
            std::string::npos)
      << std::string(status.message());
}

TEST(MemoryTest, RanksThatShareABatchNeedItsActivations) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const auto check = [&](int64_t sequences, int64_t each) {
    const Prepared run =
        Load({Concat("batch.sequences=", sequences), Concat("batch.microbatch_sequences=", each)});
    return RunRanks(2, {}, [&](World& world) {
      return CheckStateMemory(run.recipe.proto(), run.config, {.data = 2}, world, *cpu);
    });
  };
  const absl::Status wide = check(1 << 17, 1 << 16);
  EXPECT_EQ(ExitCode(wide), kExitUnavailable);
  EXPECT_NE(wide.message().find("activations included"), std::string::npos) << wide;
  EXPECT_TRUE(check(1 << 17, 4).ok()) << "few at once";
}

TEST(MemoryTest, RanksOfOneMachineShareItsMemory) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const auto bytes_of = [&](const Prepared& run) {
    return StateOf(run.recipe.proto(), run.config, {.data = 2}, 0, ComputeOf(run.recipe.proto(), *cpu))
        ->bytes;
  };
  // Of hardly any tokens.
  const auto tiny = [](double width) {
    return std::vector<std::string>{Concat("model.moe_intermediate_size=", static_cast<int64_t>(width)),
                                    "batch.sequences=2", "batch.microbatch_sequences=1",
                                    "batch.sequence_length=16"};
  };
  const double each = bytes_of(Load(tiny(8192)));
  // Two of them do not fit, one would.
  const Prepared run = Load(tiny(8192 * 0.7 * static_cast<double>(cpu->free_bytes()) / each));
  ASSERT_LT(bytes_of(run), 0.9 * static_cast<double>(cpu->free_bytes()));
  const auto check = [&](const Layout& layout) {
    return RunRanks(layout.ranks(), {}, [&](World& world) {
      return CheckStateMemory(run.recipe.proto(), run.config, layout, world, *cpu);
    });
  };
  EXPECT_TRUE(check({}).ok()) << check({});
  const absl::Status two = check({.data = 2});
  EXPECT_EQ(ExitCode(two), kExitUnavailable);
  EXPECT_NE(two.message().find("the 2 ranks of one machine"), std::string::npos) << two;
}

}  // namespace
}  // namespace moebius
