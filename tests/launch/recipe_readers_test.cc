// Values of a recipe that nothing reads are refused, by family, schedule, task, problem and reward.
#include <gtest/gtest.h>

#include "core/base/strings.h"
#include "core/model/model.pb.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "tests/launch/recipe_text.h"

namespace moebius {
namespace {

constexpr char kLlama[] = R"(
name: "llama"
model {
  model_type: "llama" vocab_size: 64 hidden_size: 8 intermediate_size: 8 num_hidden_layers: 1
  num_attention_heads: 2
}
data { train: "train.h5" }
)";

TEST(Recipe, RefusesWhatItsFamilyScheduleOrTaskDoesNotRead) {
  ExpectHas(
      RecipeError("model {\n model_type: \"llama\"\n kv_lora_rank: 16 }"),
      "r.textproto:3: model.kv_lora_rank is 16; model.model_type llama does not read it, only deepseek_v3, "
      "deepseek_v2 do; leave it out");
  ExpectHas(RecipeError(kLlama, {"model.mlp_only_layers=0"}),
            "model.mlp_only_layers[0] is 0; model.model_type llama");
  ExpectHas(RecipeError(kLlama, {"model.model_type=deepseek_v3", "model.head_dim=4"}),
            "model.head_dim is 4; ");
  ExpectHas(RecipeError(kLlama, {"model.rope_scaling={rope_type: \"llama3\" factor: 8 beta_fast: 3}"}),
            "model.rope_scaling.beta_fast is 3; model.rope_scaling.rope_type llama3 does not read it, only "
            "yarn does");
  ExpectHas(RecipeError(kLlama, {"optimizer.decay_steps=10"}),
            "--set optimizer.decay_steps=10: optimizer.decay_steps is 10; optimizer.schedule CONSTANT does "
            "not read");
  ExpectHas(RecipeError(kLlama, {"optimizer.schedule=COSINE", "optimizer.decay_shape=LINEAR"}),
            "only WSD does");
  ExpectHas(RecipeError(kLlama, {"optimizer.phase={steps: 5 from_lr: 1 to_lr: 1}"}),
            "only V3_PIECEWISE does");
  ExpectHas(RecipeError(kLlama, {"dpo.beta=0.2"}),
            "dpo.beta is 0.2; task PRETRAIN does not read it, only DPO does");
  ExpectHas(RecipeError(kLlama, {"task=SFT", "sft.data=a.jsonl"}),
            "data.train is \"train.h5\"; task SFT does not");
  ExpectHas(RecipeError("name: \"p\" task: PIPELINE stage { name: \"a\" recipe: \"a.textproto\" } steps: 5"),
            "steps is 5; task PIPELINE does not read it");
}

TEST(Recipe, RefusesKnobsOfOtherProblemsAndRewards) {
  const std::string sort = "task: GRPO init { from: \"m\" } problems { kind: \"sort\" }\n";
  ASSERT_TRUE(ReadRecipe(sort).ok()) << ReadRecipe(sort).status();
  ExpectHas(RecipeError(sort, {"problems.add_digits=3"}),
            "problems.kind sort does not read it, only add does");
  ExpectHas(RecipeError(sort, {"problems.jsonl_kind=CODE"}), "nothing reads it without problems.jsonl; ");
  ExpectHas(RecipeError("task: GRPO init { from: \"m\" } problems { jsonl: \"f\" sort_length: 3 }"),
            "problems.sort_length is 3; nothing reads it where problems.jsonl is given");
  ExpectHas(RecipeError(sort + "reward { part { name: \"correct\" } part { name: \"coin\" words: 5 } }"),
            "reward.part[1].words is 5; reward.part.name coin does not read it, only repetition does");
  ExpectHas(RecipeError(sort, {"rl.kl_coefficient=0.1"}), "nothing reads it without rl.kl; ");
  ExpectHas(RecipeError(sort, {"rl.surrogate=CISPO", "rl.dual_clip=3"}),
            "rl.surrogate CISPO does not read it");
  ExpectHas(RecipeError(sort, {"rl.correct_mismatch=false", "rl.keep_to=3"}), "does not read it");
  ExpectHas(RecipeError(sort, {"task=SFT", "sft.shuffle=false"}), "nothing reads it without sft.data; ");
  ExpectHas(
      RecipeError(
          "task: GRPO init { from: \"m\" } problems { jsonl: \"f\" held_out_jsonl: \"g\" held_out: 0.2 }"),
      "problems.held_out is 0.2; nothing reads it where problems.held_out_jsonl is given");
}

TEST(Recipe, RefusesWhatNoAnswerIsJudgedBy) {
  const std::string sort = "task: GRPO init { from: \"m\" } problems { kind: \"sort\" }\n";
  ExpectHas(RecipeError(sort, {"reward.judge_again=0.5"}), "does not read it, only CODE does");
  ExpectHas(RecipeError(sort, {"answer.answer_tag=x"}),
            "answer.where WHOLE does not read it, only TAGS does");
  ExpectHas(RecipeError(sort, {"rl.top_p=0"}), "rl.top_p is 0; no token would be left");
  ExpectHas(RecipeError("task: REJECTION init { from: \"m\" }"), "problems is missing; task REJECTION");
}

TEST(Recipe, RefusesToEvaluateWithoutProblems) {
  const std::string sft = "task: SFT init { from: \"m\" } sft { data: \"f\" } evaluate { every_steps: 5 }\n";
  ExpectHas(RecipeError(sft), "evaluate.every_steps is 5; nothing reads it without problems; ");
  EXPECT_TRUE(ReadRecipe(sft + "problems {}").ok()) << "the default task's";
}

TEST(Recipe, AChoiceOutdatesWhatWasSaidForTheOneBefore) {
  const std::string cosine =
      std::string(kLlama) + "optimizer { schedule: COSINE decay_steps: 10 min_lr: 1e-5 lr: 1e-3 }";
  const auto constant = ReadRecipe(cosine, {"optimizer.schedule=CONSTANT"});
  ASSERT_TRUE(constant.ok()) << constant.status();
  EXPECT_FALSE(constant->proto().optimizer().has_decay_steps());
  EXPECT_EQ(constant->proto().optimizer().lr(), 1e-3);
  EXPECT_TRUE(ReadRecipe(constant->ToText()).ok()) << "what a run keeps is a recipe";
  ExpectHas(RecipeError(cosine, {"optimizer.schedule=CONSTANT", "optimizer.decay_steps=5"}),
            "CONSTANT does not read it");
  ExpectHas(RecipeError(std::string(kLlama) + "optimizer { decay_steps: 10 }"), "CONSTANT does not read it");
  const TempFolder folder;
  folder.Write("base.textproto", cosine);
  const auto over = [&](const std::string& text) {
    return Recipe::Load(folder.Write("over.textproto", "include: \"base.textproto\"\n" + text), {});
  };
  EXPECT_TRUE(over("optimizer { schedule: CONSTANT }").ok());
  EXPECT_FALSE(over("optimizer { schedule: CONSTANT decay_steps: 7 }").ok());
  EXPECT_FALSE(over("optimizer { phase { steps: 5 from_lr: 1 to_lr: 1 } }").ok());
}

TEST(Recipe, TakesWhatSaysNothing) {
  // As resolved recipes do, which write out every default and are recipes themselves.
  EXPECT_TRUE(ReadRecipe(kLlama, {"model.kv_lora_rank=0", "optimizer.decay_steps=0", "dpo.beta=0.1"}).ok());
  for (const char* task : {"SFT", "GRPO", "REJECTION"}) {
    const auto recipe =
        ReadRecipe("init { from: \"m\" } problems { kind: \"sort\" }", {std::string("task=") + task});
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    const auto again = ReadRecipe(recipe->ToText());
    EXPECT_TRUE(again.ok()) << again.status();
  }
}

TEST(Recipe, IsStrictAboutItsOwnModelFieldsAndLenientAboutThoseOfAConfig) {
  proto::Model config;
  config.set_model_type("deepseek_v3");
  config.set_head_dim(64);
  config.set_kv_lora_rank(8);
  auto recipe = ReadRecipe(kMinimalRecipe);
  ASSERT_TRUE(recipe->FillModel(config, "config.json").ok());
  EXPECT_EQ(recipe->proto().model().kv_lora_rank(), 8);
  EXPECT_FALSE(recipe->proto().model().has_head_dim()) << "the resolved recipe would be refused";
  auto own = ReadRecipe(std::string(kMinimalRecipe) + "model { head_dim: 32 }");
  ASSERT_TRUE(own.ok()) << own.status() << ": the family is not known yet";
  const absl::Status status = own->FillModel(config, "config.json");
  EXPECT_EQ(ExitCode(status), kExitUsage);
  ExpectHas(std::string(status.message()),
            "r.textproto:8: model.head_dim is 32; model.model_type deepseek_v3");
}

TEST(Recipe, TheTableOfReadersNamesFieldsAndTheirValues) {
  std::vector<std::string> paths = LeafPaths(*proto::Recipe::descriptor(), false);
  for (size_t i = 0, leaves = paths.size(); i < leaves; ++i) {
    for (size_t dot = paths[i].find('.'); dot != std::string::npos; dot = paths[i].find('.', dot + 1))
      paths.push_back(paths[i].substr(0, dot));
  }
  for (const FieldReaders& readers : RecipeReaders()) {
    EXPECT_NE(std::count(paths.begin(), paths.end(), readers.field), 0) << readers.field;
    EXPECT_NE(std::count(paths.begin(), paths.end(), readers.chooser), 0) << readers.chooser;
    for (const std::string& choice : readers.choices) {
      proto::Task task;
      EXPECT_TRUE(readers.chooser != "task" || proto::Task_Parse(choice, &task)) << choice;
    }
  }
}

}  // namespace
}  // namespace moebius
