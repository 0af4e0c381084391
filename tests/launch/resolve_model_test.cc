#include "launch/train/resolve_model.h"

#include "core/base/status.h"
#include "data/token_file.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "gtest/gtest.h"
#include "launch/recipe.pb.h"
#include "tests/data/small_tokenizer.h"
#include "tests/launch/experts_recipe.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

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

}  // namespace
}  // namespace moebius
