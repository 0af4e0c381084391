// From a recipe to what a trainer is told.
#include "launch/train/setup.h"

#include "core/base/check.h"
#include "core/base/status.h"
#include "data/token_file.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "gtest/gtest.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/dry_run.h"
#include "launch/train/resolve_model.h"
#include "launch/train/settings.h"
#include "parallel/comm/world.h"
#include "tests/data/small_tokenizer.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

constexpr const char* kExperts =
    R"(name: "t" task: GRPO tokenizer: "symbols:0123456789sort =" problems { kind: "sort" }
model { model_type: "deepseek_v3" hidden_size: 32 intermediate_size: 48 moe_intermediate_size: 16
  num_hidden_layers: 2 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 4 num_experts_per_tok: 2
  n_group: 1 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 q_lora_rank: 16 qk_rope_head_dim: 8
  qk_nope_head_dim: 8 v_head_dim: 8 max_position_embeddings: 64 }
batch { sequences: 8 sequence_length: 32 } steps: 4 balance { bias_update_speed: 0.01 })";

Recipe Experts(const std::vector<std::string>& sets) {
  absl::StatusOr<Recipe> recipe = Recipe::FromText(kExperts, "t.textproto", sets);
  CHECK(recipe.ok()) << std::string(recipe.status().message());
  return *std::move(recipe);
}

// Reinforcement leaves selection biases alone unless it is told otherwise; other tasks go on moving them.
TEST(TrainConfigOf, RouterBiasesOfReinforcementAreAChoice) {
  EXPECT_EQ(TrainConfigOf(Experts({}).proto()).bias_update_speed, 0);
  EXPECT_EQ(TrainConfigOf(Experts({"rl.router_bias=MOVING"}).proto()).bias_update_speed, 0.01);
  EXPECT_EQ(TrainConfigOf(Experts({"task=SFT"}).proto()).bias_update_speed, 0.01);
}

// A model that is made for a tokenizer has a row for each of its tokens, and ends its texts as it does.
TEST(ResolveModel, TakesSizeAndEndFromTheTokenizer) {
  Recipe recipe = Experts({});
  const absl::StatusOr<ModelConfig> config = ResolveModel(recipe);
  ASSERT_TRUE(config.ok()) << config.status();
  const Tokenizer tokenizer = *MakeTokenizer("symbols:0123456789sort =");
  EXPECT_EQ(config->vocab_size, tokenizer.vocab_size());
  ASSERT_GE(config->eos_token_id, 0);
  const std::vector<int32_t> end = {static_cast<int32_t>(config->eos_token_id)};
  EXPECT_EQ(tokenizer.Decode(end), kEndOfText);
  Recipe other = Experts({"model.eos_token_id=3", "model.vocab_size=40"});
  const absl::StatusOr<ModelConfig> given = ResolveModel(other);
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->eos_token_id, 3);
  EXPECT_EQ(given->vocab_size, 40);
  Recipe small = Experts({"model.vocab_size=9"});
  const absl::StatusOr<ModelConfig> refused = ResolveModel(small);
  EXPECT_EQ(ExitCode(refused.status()), kExitUsage) << "tokens without a row";
}

// Two levels are host code, which cannot reach a GPU's memory.
TEST(LayoutOf, TokensGoInTwoLevelsOnGpusOnlyWhenToldTo) {
  const auto kind = [](std::vector<std::string> sets) {
    sets.push_back("rl.rollout=FAST");
    Recipe recipe = Experts(sets);
    const absl::StatusOr<Layout> layout = LayoutOf(recipe.proto(), *ResolveModel(recipe), 2);
    CHECK(layout.ok()) << layout.status();
    return layout->exchange.kind;
  };
  EXPECT_EQ(kind({"parallel.expert=2"}), ExchangeKind::kAuto);
  EXPECT_EQ(kind({"parallel.expert=2", "device=CUDA"}), ExchangeKind::kFlat);
  EXPECT_EQ(kind({"parallel.expert=2", "device=CUDA", "parallel.exchange=TWO_LEVEL"}),
            ExchangeKind::kTwoLevel);
  EXPECT_EQ(kind({"parallel.expert=2", "device=CUDA", "parallel.exchange=GATHER"}), ExchangeKind::kGather);
  EXPECT_EQ(kind({"parallel.expert=2", "parallel.exchange=FLAT"}), ExchangeKind::kFlat);
}

TEST(SequencesOfRun, IsTheSumOfItsStepsHoweverManyTheyAre) {
  for (const int steps : {0, 1, 5, 6, 20}) {
    auto recipe = Recipe::FromText(
        R"(init { from: "m" } data { train: "t.h5" } batch { sequences: 4 ramp { at_step: 1 to_sequences: 8 }
           ramp { at_step: 6 to_sequences: 16 } ramp { at_step: 30 to_sequences: 32 } })",
        "ramp.textproto", {"steps=" + std::to_string(steps)});
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    double sum = 0;
    for (int step = 1; step <= steps; ++step)
      sum += static_cast<double>(SequencesOfStep(recipe->proto(), step));
    EXPECT_EQ(SequencesOfRun(recipe->proto()), sum) << steps;
  }
  const auto recipe = Recipe::FromText(R"(init { from: "m" } data { train: "t.h5" } batch { sequences: 4 })",
                                       "long.textproto", {"steps=1e12"});
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_EQ(SequencesOfRun(recipe->proto()), 4e12);
}

// Answers have no MTP depths, so modules that the model has are not part of the work.
TEST(DescribePlan, CountsMtpModulesOfRunsOnTextsAlone) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  Recipe answers = Experts({"task=SFT", "model.num_nextn_predict_layers=1"});
  const absl::StatusOr<ModelConfig> config = ResolveModel(answers);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(DescribePlan(answers.proto(), *config, *backend, 0).find("MTP"), std::string::npos);
  proto::Recipe texts = answers.proto();
  texts.set_task(proto::PRETRAIN);
  EXPECT_NE(DescribePlan(texts, *config, *backend, 0).find("MTP"), std::string::npos);
}

// What training steps over, and `bench train` times.
TEST(StepBatchOf, KeepsDocumentsApartWhereTheRecipeDoes) {
  const Batch batch{
      .num_sequences = 1, .sequence_length = 4, .tokens = {1, 2, 3, 4, 5}, .document_starts = {{0, 2}}};
  proto::Recipe recipe;
  EXPECT_TRUE(StepBatchOf(batch, recipe).document_starts.empty());
  recipe.mutable_data()->set_document_mask(true);
  EXPECT_EQ(StepBatchOf(batch, recipe).document_starts, batch.document_starts);
  EXPECT_EQ(StepBatchOf(batch, recipe).tokens.size(), 5u);
}

// More ranks may take what one does not: that is said, and why.
TEST(DescribePlan, SaysWhyOneRankAloneIsRefused) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  Recipe recipe = Experts({"task=SFT", "batch.sequences=4194304", "batch.sequence_length=64"});
  const absl::StatusOr<ModelConfig> config = ResolveModel(recipe);
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string plan = DescribePlan(recipe.proto(), *config, *backend, 0);
  EXPECT_NE(
      plan.find("one rank alone is refused: the layout does not fit; a microbatch of 4194304 sequences"),
      std::string::npos)
      << plan;
  const std::string spread = DescribePlan(Experts({"parallel.expert=2"}).proto(), *config, *backend, 0);
  EXPECT_NE(spread.find("of the model once"), std::string::npos) << spread;
  EXPECT_EQ(spread.find("refused"), std::string::npos) << spread;
}

// Generation from a model that was trained on documents stops where one ends.
TEST(ResolveModel, TakesTheEndsOfANewModelFromItsDataUnlessItIsTold) {
  const TempFolder folder;
  const Tokenizer tokenizer = SmallTokenizer({"<s>", "</s>"});
  auto writer = TokenFileWriter::Create(folder.File("train.h5"), tokenizer.vocab_size());
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->AddDocument(std::vector<int32_t>(100, 7)).ok());
  ASSERT_TRUE((*writer)
                  ->Finish({.vocab_size = tokenizer.vocab_size(),
                            .bytes = 100,
                            .tokenizer_sha256 = "",
                            .tokenizer_json = tokenizer.json()})
                  .ok());
  const auto resolve = [&](std::vector<std::string> sets) {
    sets.push_back("data.train=" + folder.File("train.h5"));
    auto recipe = Recipe::FromText(
        R"(model { model_type: "llama" vocab_size: 260 hidden_size: 8 intermediate_size: 8 num_hidden_layers: 1
           num_attention_heads: 2 })",
        "texts.textproto", sets);
    CHECK(recipe.ok()) << recipe.status();
    const absl::StatusOr<ModelConfig> config = ResolveModel(*recipe);
    CHECK(config.ok()) << config.status();
    EXPECT_EQ(recipe->proto().model().eos_token_id(), config->eos_token_id);
    return *config;
  };
  const ModelConfig config = resolve({});
  EXPECT_EQ(config.bos_token_id, kFirstSpecialId + 1) << "behind the end of another text";
  EXPECT_EQ(config.eos_token_id, kFirstSpecialId + 1);
  const ModelConfig told = resolve({"model.bos_token_id=-1", "model.eos_token_id=5"});
  EXPECT_EQ(told.bos_token_id, -1);
  EXPECT_EQ(told.eos_token_id, 5);
  EXPECT_EQ(resolve({"model.eos_token_id=5"}).bos_token_id, kFirstSpecialId + 1);
}

// Before its data is built a run can be planned, but not begun.
TEST(ResolveModel, DoesWithoutData) {
  auto recipe = Recipe::FromText(
      R"(model { model_type: "llama" vocab_size: 260 hidden_size: 8 intermediate_size: 8 num_hidden_layers: 1
         num_attention_heads: 2 } data { train: "no/such.h5" })",
      "texts.textproto", {});
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  const absl::StatusOr<ModelConfig> config = ResolveModel(*recipe);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->eos_token_id, -1);
  EXPECT_EQ(ExitCode(CheckTextsExist(recipe->proto())), kExitMissing);
}

TEST(Setup, RanksThatWouldComputeInDifferentTypesAreRefused) {
  const auto agree = [](DType of_rank_2) {
    return RunRanks(3, {}, [&](World& world) {
      return AgreeOnCompute(world, world.rank() == 2 ? of_rank_2 : DType::kBF16);
    });
  };
  EXPECT_TRUE(agree(DType::kBF16).ok());
  const absl::Status mixed = agree(DType::kF32);
  EXPECT_EQ(ExitCode(mixed), kExitUnavailable);
  EXPECT_NE(mixed.message().find("on rank 0 and F32 on rank 2"), std::string::npos) << mixed;
}

}  // namespace
}  // namespace moebius
