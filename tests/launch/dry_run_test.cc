#include "launch/train/dry_run.h"

#include "gtest/gtest.h"
#include "launch/recipe.pb.h"
#include "launch/train/resolve_model.h"
#include "tests/launch/experts_recipe.h"

namespace moebius {
namespace {

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

}  // namespace
}  // namespace moebius
