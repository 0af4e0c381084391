#include "launch/recipe.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/model/model.pb.h"
#include "launch/recipe.pb.h"
#include "launch/train/settings.h"
#include "tests/launch/recipe_text.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

class Folder : public testing::Test {
 protected:
  Folder() : path_(fs::temp_directory_path() / ("recipe_test_" + std::to_string(getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_ / "sub");
  }
  ~Folder() override { fs::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(path_ / name) << text;
    return (path_ / name).string();
  }
  const fs::path path_;
};

TEST(Recipe, ReadsTheExampleOfTheContract) {
  const auto recipe = ReadRecipe(R"(
    name: "tiny"   task: PRETRAIN            # SFT DPO GRPO
    init { from: "DIR" }
    data { train: "train.h5" validation: "val.h5" shuffle: true pack: CONTIGUOUS }
    batch { sequences: 16 sequence_length: 512 microbatch_sequences: 2 }
    steps: 500   seed: 1
    optimizer { lr: 1e-3 schedule: CONSTANT warmup_steps: 0 beta1: 0.9 beta2: 0.95 epsilon: 1e-8 weight_decay: 0.1 clip_norm: 1.0 }
    balance { bias_update_speed: 0.001 sequence_loss: 1e-4 auxiliary_loss: 0 router_z_loss: 0 }
    mtp { loss_weight: 0.3 }
    precision { compute: AUTO }
    parallel { pipeline: 1 expert: 1 data: 0 schedule: "1f1b" }
    checkpoint { every_steps: 100 keep: 2 })");
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_EQ(recipe->proto().batch().sequences(), 16);
  EXPECT_DOUBLE_EQ(recipe->proto().optimizer().lr(), 1e-3);
  EXPECT_EQ(recipe->proto().checkpoint().keep(), 2);
}

TEST(Recipe, ReportsEveryUnknownFieldWithPlaceAndNearestName) {
  const std::string error =
      RecipeError(std::string(kMinimalRecipe) + "optimizer { lrr: 1\n  wamrup_steps: 3 }\nstpes: 4\nlr: 2\n");
  ExpectHas(error, "r.textproto:8:13: unknown field 'optimizer.lrr'; did you mean optimizer.lr? ");
  ExpectHas(error,
            "r.textproto:9:3: unknown field 'optimizer.wamrup_steps'; did you mean optimizer.warmup_steps? ");
  ExpectHas(error, "unknown field 'stpes'; did you mean steps? ");
  ExpectHas(error, "unknown field 'lr'; did you mean optimizer.lr? ");
}

TEST(Recipe, TakesFilesOfEditorsOnWindows) {
  EXPECT_TRUE(ReadRecipe("\xEF\xBB\xBF" + std::string(kMinimalRecipe)).ok());
  std::string text = kMinimalRecipe;
  for (size_t i = 0; (i = text.find('\n', i)) != text.npos; i += 2) text.insert(i, 1, '\r');
  EXPECT_TRUE(ReadRecipe(text).ok());
}

TEST(Recipe, NamesPlaceAndAdviceForBadSyntaxAndBadEnumValues) {
  ExpectHas(RecipeError("steps: many"), "r.textproto:1:8: ");
  ExpectHas(RecipeError("precision { compute: BF61 }"),
            "did you mean BF16? it is one of AUTO, FP32, BF16, FP8");
  ExpectHas(RecipeError("steps: 99999999999999999999999"), "r.textproto:1:8");
  ExpectHas(RecipeError("optimizer { lr: 1"), "r.textproto:1:");
}

TEST(Recipe, ReportsAllNumbersOutOfRangeTogetherWithTheirOrigin) {
  const std::string error =
      RecipeError(std::string(kMinimalRecipe) + "optimizer { lr: -1 beta1: 1.0\n epsilon: nan }",
                  {"sample.top_p=2", "threads=-1"});
  ExpectHas(error, "r.textproto:8: optimizer.lr is -1; it must be from 0 to 100");
  ExpectHas(error, "r.textproto:8: optimizer.beta1 is 1; it must be from 0 to below 1");
  ExpectHas(RecipeError(std::string(kMinimalRecipe) + "optimizer { beta2: 0.99999999 }"),
            "it must be from 0 to below 1");  // which is 1 in fp32
  ExpectHas(error, "r.textproto:9: optimizer.epsilon is nan");
  ExpectHas(error, "--set sample.top_p=2: sample.top_p is 2; it must be from 0 to 1");
  ExpectHas(error, "threads is -1");
}

TEST(Recipe, EveryNumberOfARecipeHasARange) {
  std::vector<std::string> missing = LeafPaths(*proto::Recipe::descriptor(), /*numbers_only=*/true);
  std::erase_if(missing, [](const std::string& path) {
    return std::any_of(RecipeRanges().begin(), RecipeRanges().end(),
                       [&](const NumberRange& r) { return r.path == path; });
  });
  EXPECT_EQ(missing, std::vector<std::string>{}) << "add these to launch/recipe_ranges.cc";
  const auto leaves = LeafPaths(*proto::Recipe::descriptor(), true);
  for (const NumberRange& range : RecipeRanges()) {
    EXPECT_EQ(std::count(leaves.begin(), leaves.end(), range.path), 1) << range.path << " names no field";
  }
}

TEST(Recipe, ItsDefaultsLieInTheirRanges) {
  EXPECT_TRUE(ReadRecipe(kMinimalRecipe).ok()) << ReadRecipe(kMinimalRecipe).status();
}

TEST(Recipe, ReportsContradictionsBetweenFields) {
  ExpectHas(RecipeError("name: \"x\""), "r.textproto: neither init.from nor model");
  ExpectHas(RecipeError("name: \"x\""), "data.train is missing");
  ExpectHas(RecipeError(kMinimalRecipe, {"batch.microbatch_sequences=6"}),
            "whole number of microbatches; use a divisor, for example 4");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.schedule=wsd"}), "choose 1 to 500");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.schedule=v3_piecewise"}), "without optimizer.phase");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.warmup_steps=501"}), "while warming up");
  const std::vector<std::string> decays = {"optimizer.schedule=WSD", "optimizer.decay_steps=100"};
  const auto warming = [decays](const std::string& steps) {
    std::vector<std::string> sets = decays;
    sets.push_back("optimizer.warmup_steps=" + steps);
    return RecipeError(kMinimalRecipe, sets);
  };
  ExpectHas(warming("450"), "choose 1 to 50");
  ExpectHas(warming("500"), "leave steps for it");
  EXPECT_EQ(warming("501").find("decay_steps"), std::string::npos) << "follows from the other error";
  ExpectHas(RecipeError(kMinimalRecipe, {"name=a/b"}), "it becomes a folder");
  ExpectHas(RecipeError(kMinimalRecipe, {"sample.every_steps=5"}), "without sample.prompts");
  ExpectHas(RecipeError(kMinimalRecipe, {"task=GRPO"}), "problems is missing; task GRPO");
  ExpectHas(RecipeError(kMinimalRecipe, {"batch.ramp={at_step: 5 to_sequences: 8}",
                                         "batch.ramp={at_step: 5 to_sequences: 16}"}),
            "must rise");
}

TEST(Recipe, TakesLayoutsAndSchedulesByNameOrFile) {
  EXPECT_TRUE(
      ReadRecipe(kMinimalRecipe, {"parallel.pipeline=2", "parallel.expert=2", "parallel.schedule=dualpipe"})
          .ok());
  EXPECT_TRUE(ReadRecipe(kMinimalRecipe, {"parallel.schedule=mine.txt"}).ok());
  ExpectHas(RecipeError(kMinimalRecipe, {"parallel.schedule=1f1c"}), "it is one of");
  ExpectHas(RecipeError(kMinimalRecipe, {"parallel.pipeline=0"}), "parallel.pipeline");
}

TEST(Recipe, SetsScalarsEnumsListsAndSections) {
  const auto recipe =
      ReadRecipe(std::string(kMinimalRecipe) + "sample { prompts: \"a\" prompts: \"b\" }",
                 {"optimizer.lr=3e-4", "steps=1e3", "optimizer.schedule=cosine", "data.shuffle=false",
                  "name=other", "sample.prompts=Once upon", "sample.prompts=a time",
                  "sample.prompts[1]=a day", "data.validation=\"quoted.h5\"", "init.from=\"symbols:+\\n\"",
                  "mtp={loss_weight: 0.1}", "seed=18446744073709551615"});
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  const proto::Recipe& r = recipe->proto();
  EXPECT_DOUBLE_EQ(r.optimizer().lr(), 3e-4);
  EXPECT_EQ(r.steps(), 1000);
  EXPECT_EQ(r.optimizer().schedule(), proto::Optimizer::COSINE);
  EXPECT_FALSE(r.data().shuffle());
  EXPECT_EQ(r.name(), "other");
  ASSERT_EQ(r.sample().prompts_size(), 2);
  EXPECT_EQ(r.sample().prompts(0), "Once upon");
  EXPECT_EQ(r.sample().prompts(1), "a day");
  EXPECT_EQ(r.data().validation(), "quoted.h5");
  EXPECT_EQ(r.init().from(), "symbols:+\n");
  EXPECT_DOUBLE_EQ(r.mtp().loss_weight(), 0.1);
  EXPECT_EQ(r.seed(), 18446744073709551615u);
}

TEST(Recipe, SetsElementsOfRepeatedSections) {
  const auto recipe =
      ReadRecipe(kMinimalRecipe, {"optimizer.schedule=V3_PIECEWISE", "optimizer.phase[0].steps=10",
                                  "optimizer.phase[0].from_lr=1e-3", "optimizer.phase[0].to_lr=1e-4",
                                  "optimizer.phase={steps: 5 from_lr: 1e-4 to_lr: 0 shape: LINEAR}"});
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  ASSERT_EQ(recipe->proto().optimizer().phase_size(), 2);
  EXPECT_EQ(recipe->proto().optimizer().phase(1).shape(), proto::Optimizer::LINEAR);
  ExpectHas(recipe->ToText(), "# --set optimizer.phase[0].steps=10");
}

TEST(Recipe, WarmUpRisesToTheFirstPhase) {
  const std::vector<std::string> phases = {"optimizer.schedule=V3_PIECEWISE", "optimizer.warmup_steps=2",
                                           "optimizer.phase={steps: 5 from_lr: 5e-4 to_lr: 1e-4}"};
  std::vector<std::string> jumps = phases;
  jumps.emplace_back("optimizer.lr=0.25");
  ExpectHas(RecipeError(kMinimalRecipe, jumps), "optimizer.lr is 0.25 and optimizer.phase[0].from_lr 0.0005");
  std::vector<std::string> level = phases;
  level.emplace_back("optimizer.lr=5e-4");
  const auto recipe = ReadRecipe(kMinimalRecipe, level);
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_DOUBLE_EQ(TrainConfigOf(recipe->proto()).schedule.lr, 5e-4);
}

// One --set is one field: what stands behind its value was set too, or crashed.
TEST(Recipe, NothingFollowsTheValueOfAnOverride) {
  for (const char* set : {"sample.prompts=[\"a\"] every_steps: 3", "sample.prompts=[\"a\"], every_steps: 3",
                          "optimizer={lr: 2e-3} seed: 9", "optimizer={lr: 2e-3} include: \"nosuch\"",
                          "optimizer.phase=[{steps: 5}] lr: 3", "mtp={loss_weight: 0.1} optimizer { lr: 1 }",
                          "mtp={loss_weight: 0.1} evaluate{}"}) {
    ExpectHas(RecipeError(kMinimalRecipe, {set}), "one --set sets one field; repeat it");
  }
}

// As a layer of the recipe does it: a list is said whole.
TEST(Recipe, AListInsideAnOverridesSectionReplacesTheRecipes) {
  const auto recipe = ReadRecipe(std::string(kMinimalRecipe) + "sample { prompts: \"a\" prompts: \"b\" }",
                                 {"sample={prompts: \"c\"}"});
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  ASSERT_EQ(recipe->proto().sample().prompts_size(), 1);
  EXPECT_EQ(recipe->proto().sample().prompts(0), "c");
}

TEST(Recipe, SuggestsForWrongOverrides) {
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.lrr=1"}), "did you mean optimizer.lr? ");
  ExpectHas(RecipeError(kMinimalRecipe, {"lr=1"}), "did you mean optimizer.lr? ");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimzer.lr=1"}), "did you mean optimizer? ");
  ExpectHas(RecipeError(kMinimalRecipe, {"include=nope"}), "include cannot be set; ");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.lr"}), "not of the form FIELD=VALUE");
  ExpectHas(RecipeError(kMinimalRecipe, {"steps=1.5"}), "whole number");
  ExpectHas(RecipeError(kMinimalRecipe, {"steps.x=1"}), "steps is a value");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer=1"}), "optimizer is a section");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.phase.steps=1"}), "name the element: optimizer.phase[0]");
  ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.phase[3].steps=1"}), "the next index is 0");
  ExpectHas(RecipeError(kMinimalRecipe, {"data.shuffle=yes"}), "true or false");
  ExpectHas(RecipeError(kMinimalRecipe, {"data.pack=CONTIGOUS"}), "did you mean CONTIGUOUS?");
  ExpectHas(RecipeError(kMinimalRecipe, {"mtp={los_weight: 1}"}), "did you mean mtp.loss_weight?");
}

TEST(Recipe, PrintsAValidRecipeWithTheOriginOfEveryValue) {
  const auto recipe = ReadRecipe(kMinimalRecipe, {"optimizer.lr=0.002", "sample.prompts=say \"hi\"\n"});
  ASSERT_TRUE(recipe.ok());
  const std::string text = recipe->ToText();
  ExpectHas(text, "# r.textproto:6");
  ExpectHas(text, "# --set optimizer.lr=0.002");
  ExpectHas(text, "# default");
  const auto again = ReadRecipe(text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->CheckResumable(*recipe).ok()) << again->CheckResumable(*recipe);
  EXPECT_DOUBLE_EQ(again->proto().optimizer().lr(), 0.002);
  EXPECT_EQ(again->proto().sample().prompts(0), "say \"hi\"\n");
  // What is not set is shown, and not set by reading it: other checks ask what was.
  ExpectHas(text, "# beta2: 0.95");
  EXPECT_FALSE(again->proto().optimizer().has_beta2());
  EXPECT_FALSE(again->proto().has_problems());
}

TEST(Recipe, ContinuesOnlyWithTheFieldsThatMayChange) {
  const auto saved = ReadRecipe(kMinimalRecipe);
  for (const char* set : {"steps=900", "checkpoint.keep=9", "max_minutes=3", "batch.microbatch_sequences=4",
                          "log.every_steps=1", "validate.every_steps=3", "recompute.policy=blocks"}) {
    EXPECT_TRUE(ReadRecipe(kMinimalRecipe, {set})->CheckResumable(*saved).ok()) << set;
  }
  for (const char* set :
       {"optimizer.lr=1", "seed=2", "batch.sequences=32", "data.train=other.h5", "balance.sequence_loss=0"}) {
    const absl::Status status = ReadRecipe(kMinimalRecipe, {set})->CheckResumable(*saved);
    EXPECT_EQ(ExitCode(status), kExitUsage) << set;
    ExpectHas(std::string(status.message()),
              std::string(set).substr(0, std::string(set).find('=')) + " was ");
  }
}

TEST(Recipe, ContinuesWithAnotherLimitOnStepsWithoutSignal) {
  const auto read = [](int64_t steps) {
    return ReadRecipe(R"(task: GRPO init { from: "m" } problems { kind: "sort" })",
                      {Concat("rl.no_signal_steps=", steps)});
  };
  const auto before = read(20), after = read(0);
  ASSERT_TRUE(before.ok() && after.ok()) << before.status() << after.status();
  EXPECT_TRUE(after->CheckResumable(*before).ok()) << after->CheckResumable(*before);
}

TEST(Recipe, FillsTheModelFromAConfigButKeepsWhatTheRecipeSays) {
  auto recipe = ReadRecipe(std::string(kMinimalRecipe) + "model { rope_theta: 5e5 }");
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  proto::Model model;
  model.set_hidden_size(64);
  model.set_rope_theta(1e4);
  ASSERT_TRUE(recipe->FillModel(model, "model/config.json").ok());
  EXPECT_EQ(recipe->proto().model().hidden_size(), 64);
  EXPECT_DOUBLE_EQ(recipe->proto().model().rope_theta(), 5e5);
  ExpectHas(recipe->ToText(), "# model/config.json");
}

TEST(Recipe, RefusesSizesThatTheWeightsItBeginsWithDoNotHave) {
  proto::Model model;
  model.set_hidden_size(64);
  model.set_num_hidden_layers(4);
  model.set_rope_theta(1e4);
  const std::vector<std::string> sets = {"model.hidden_size=32", "model.num_hidden_layers=4",
                                         "model.rope_theta=5e5", "model.vocab_size=999"};
  auto recipe = ReadRecipe(kMinimalRecipe, sets);
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  const absl::Status status = recipe->FillModel(model, "model/config.json");
  EXPECT_EQ(ExitCode(status), kExitUsage);
  EXPECT_EQ(
      std::string(status.message()),
      "model.hidden_size is 32 (--set model.hidden_size=32), and the weights of init.from are made for 64 "
      "(model/config.json); leave it out, or set init.random to begin with other weights");
  auto random = ReadRecipe(kMinimalRecipe, {"init.random=true", "model.hidden_size=32"});
  ASSERT_TRUE(random.ok()) << random.status();
  EXPECT_TRUE(random->FillModel(model, "model/config.json").ok());
}

TEST(Recipe, RefusesABoundOnExpertRowsThatGatherCannotKeep) {
  const std::vector<std::string> gather = {"parallel.exchange=GATHER", "parallel.max_expert_rows=64"};
  ExpectHas(RecipeError(kMinimalRecipe, gather),
            "parallel.max_expert_rows is set with parallel.exchange GATHER");
  EXPECT_TRUE(ReadRecipe(kMinimalRecipe, {gather[0]}).ok());
  EXPECT_TRUE(ReadRecipe(kMinimalRecipe, {gather[1]}).ok());
}

TEST(Recipe, RefusesFormatsThatAnExchangeCannotSend) {
  ExpectHas(RecipeError(kMinimalRecipe, {"parallel.combine=FP8"}), "sums do not survive");
  ExpectHas(RecipeError(kMinimalRecipe, {"parallel.exchange=GATHER", "parallel.dispatch=FP8"}),
            "parallel.exchange is GATHER, which sends rows as they are computed");
}

TEST(Recipe, MomentsInBf16DecayFast) {
  for (const char* beta : {"beta1", "beta2"}) {
    const std::string slow = std::string("optimizer.") + beta + "=0.999";
    ExpectHas(RecipeError(kMinimalRecipe, {"optimizer.moments=BF16", slow}),
              std::string(beta) + " 0.999; so slow");
    EXPECT_TRUE(ReadRecipe(kMinimalRecipe, {slow}).ok());
  }
  ExpectHas(RecipeError(kMinimalRecipe,
                        {"optimizer.moments=BF16", "optimizer.beta1=0.995", "optimizer.beta2=0.999"}),
            "beta2 0.999; so slow");
}

TEST(Recipe, EveryShippedRecipeIsOne) {
  int found = 0;
  for (const auto& entry : fs::recursive_directory_iterator(MOEBIUS_SOURCE_DIR "/recipes")) {
    const std::string path = entry.path().string();
    if (!path.ends_with(".textproto") || path.find("/models/") != std::string::npos ||
        path.find("/clusters/") != std::string::npos || path.ends_with(".data.textproto"))
      continue;
    const auto recipe = Recipe::Load(path, {});
    EXPECT_TRUE(recipe.ok()) << recipe.status();
    ++found;
  }
  EXPECT_GE(found, 20);
}

TEST_F(Folder, IncludesMergeBelowTheFileAndListsReplaceLists) {
  Write("sub/base.textproto",
        "steps: 7 optimizer { lr: 1 beta1: 0.5 } sample { prompts: \"x\" prompts: \"y\" }");
  const std::string path =
      Write("top.textproto", "include: \"sub/base.textproto\"\n" + std::string(kMinimalRecipe) +
                                 "optimizer { lr: 2 }\nsample { prompts: \"z\" }");
  const auto recipe = Recipe::Load(path, {});
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_DOUBLE_EQ(recipe->proto().optimizer().lr(), 2);
  EXPECT_DOUBLE_EQ(recipe->proto().optimizer().beta1(), 0.5);
  EXPECT_EQ(recipe->proto().steps(), 500);
  EXPECT_EQ(recipe->proto().sample().prompts_size(), 1);
  ExpectHas(recipe->ToText(), "sub/base.textproto:1");
  EXPECT_EQ(recipe->ToText().find("include"), std::string::npos);
}

TEST_F(Folder, EndsCirclesOfIncludesAndNamesMissingFiles) {
  const auto circle = Recipe::Load(Write("a.textproto", "include: \"a.textproto\""), {});
  EXPECT_EQ(ExitCode(circle.status()), kExitUsage);
  const auto missing = Recipe::Load((path_ / "none.textproto").string(), {});
  EXPECT_EQ(ExitCode(missing.status()), kExitMissing);
  ExpectHas(std::string(missing.status().message()), "none.textproto");
  const auto include = Recipe::Load(Write("b.textproto", "steps: 1\ninclude: \"none.textproto\""), {});
  EXPECT_EQ(ExitCode(include.status()), kExitMissing);
  ExpectHas(std::string(include.status().message()), "b.textproto:2: include: ");
  EXPECT_EQ(ExitCode(Recipe::Load(path_.string(), {}).status()), kExitUsage);
}

TEST(Recipe, EveryShippedModelFileIsARecipeLayer) {
  int found = 0;
  for (const auto& entry : fs::directory_iterator(MOEBIUS_SOURCE_DIR "/recipes/models")) {
    proto::Recipe recipe;
    Origins origins;
    const absl::Status status = ReadTextproto(entry.path().string(), &recipe, &origins);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(recipe.model().has_hidden_size()) << entry.path();
    std::vector<std::string> errors;
    CheckRanges(recipe, origins, RecipeRanges(), &errors);
    EXPECT_EQ(errors, std::vector<std::string>{});
    ++found;
  }
  EXPECT_GE(found, 3);
}

TEST(Recipe, TakesItsNameFromTheFile) {
  EXPECT_EQ(RecipeStem("a/b/quick.v1.textproto"), "quick");
  EXPECT_EQ(Recipe::FromText(std::string(kMinimalRecipe).substr(13), "x/y.textproto", {})->proto().name(),
            "y");
}

std::string Repeat(const std::string& part, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += part;
  return out;
}

TEST(Recipe, SurvivesHostileText) {
  const std::vector<std::string> hostile = {Repeat("x {", 300000),
                                            Repeat("x <", 300000),
                                            Repeat("model {", 1000),
                                            "x: " + Repeat("[", 300000),
                                            "[a.b] { " + Repeat("c {", 200000),
                                            std::string(2 << 20, 'a'),
                                            std::string("steps: 1\0", 9),
                                            "\xff\xfe\x00steps",
                                            "name: \"" + std::string(900000, 'n') + "\"",
                                            "steps: 1 steps: 2",
                                            "[type.googleapis.com/moebius.proto.Recipe] { }",
                                            "1: 2",
                                            "include: \"/dev/zero\"",
                                            "model { hidden_size: 0x7fffffffffffffff }",
                                            "\"",
                                            "'",
                                            "{",
                                            "}",
                                            "steps:",
                                            ":",
                                            Repeat("unknown: 1\n", 50000)};
  for (const std::string& text : hostile) {
    const auto recipe = ReadRecipe(text);
    EXPECT_EQ(ExitCode(recipe.status()), kExitUsage) << text.substr(0, 40);
    EXPECT_LT(recipe.status().message().size(), 20000u) << text.substr(0, 40);
  }
}

TEST(Recipe, SurvivesRandomDamageToAValidRecipe) {
  const RandomStream random(7, "recipe damage");
  const std::string valid = ReadRecipe(kMinimalRecipe)->ToText();
  uint64_t draw = 0;
  for (int i = 0; i < 500; ++i) {
    std::string text = valid;
    for (uint64_t k = 0; k <= random.Below(draw++, 4); ++k) {
      const size_t at = random.Below(draw++, text.size());
      switch (random.Below(draw++, 3)) {
        case 0:
          text[at] = static_cast<char>(random.Below(draw++, 256));
          break;
        case 1:
          text.erase(at, random.Below(draw++, 20));
          break;
        default:
          text.insert(at, valid.substr(random.Below(draw++, valid.size()), 15));
          break;
      }
    }
    const auto recipe = ReadRecipe(text);
    EXPECT_TRUE(recipe.ok() || ExitCode(recipe.status()) == kExitUsage) << recipe.status();
  }
}

}  // namespace
}  // namespace moebius
