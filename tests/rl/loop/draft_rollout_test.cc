// Reinforcement with drafts: the run is the one without them.
#include "core/base/status.h"
#include "gtest/gtest.h"
#include "parallel/comm/solo_world.h"
#include "tests/rl/loop/tiny_run.h"

namespace moebius {
namespace {

TinyRunOptions WithDrafts(bool drafts) {
  ModelConfig model = TinyMoe();
  model.num_nextn_predict_layers = 1;
  TinyRunOptions o = SortTwo(model);
  proto::Reward::Part& part = *o.reward.add_part();
  part.set_name("dense");
  part.set_weight(1);
  o.rl.set_max_new(6);
  o.rl.set_temperature(0.5);
  o.rl.set_drafts(drafts);
  return o;
}

struct DraftedRun {
  std::vector<std::string> answers;
  std::vector<float> weights;
  double acceptance = -1;
  std::vector<double> mismatch;  // of routes
};

DraftedRun RunOne(bool drafts, bool replays = false) {
  SoloWorld world;
  TinyRunOptions options = WithDrafts(drafts);
  if (replays) {
    options.rl.set_routing_replay(proto::Rl::ROLLOUT);
    options.rl.set_updates(2);
  }
  TinyRun run(*world, {}, options);
  const auto source = run.NewPolicySource();
  const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 3);
  EXPECT_TRUE(reports.ok()) << reports.status();
  DraftedRun out;
  for (const StepReport& report : *reports) {
    for (const auto& sample : report.samples) out.answers.push_back(sample.text);
    for (const auto& [key, value] : report.values)
      if (key == "rl/route_mismatch") out.mismatch.push_back(value);
  }
  for (const auto& [key, value] : reports->front().values) {
    if (key == "rl/draft_acceptance") out.acceptance = value;
  }
  out.weights = run.Weights();
  return out;
}

TEST(DraftRollouts, AnswersAndWeightsAreThoseWithoutDrafts) {
  const DraftedRun with = RunOne(true), without = RunOne(false);
  EXPECT_FALSE(with.answers.empty());
  EXPECT_EQ(with.answers, without.answers);
  EXPECT_EQ(with.weights, without.weights);
  EXPECT_GT(with.acceptance, 0) << "one token in twenty is right by luck";
  EXPECT_LT(with.acceptance, 1);
  EXPECT_EQ(without.acceptance, -1) << "no drafts, no metric";
}

// A draft's prompts run through the whole last layer; what is replayed must not depend on it.
TEST(DraftRollouts, ReplayedRoutesAreThoseWithoutDrafts) {
  const DraftedRun with = RunOne(true, true), without = RunOne(false, true);
  EXPECT_EQ(with.answers, without.answers);
  EXPECT_EQ(with.weights, without.weights);
  EXPECT_EQ(with.mismatch, without.mismatch);
}

// Where the policy is gathered for rollouts, its module is too.
TEST(DraftRollouts, LayoutsThatCutTheModelAcceptTheSameDrafts) {
  const DraftedRun whole = RunOne(true);
  for (const Layout& layout : {Layout{.pipeline = 2}, Layout{.expert = 2}}) {
    const absl::Status status = OnRanks(layout, WithDrafts(true), [&](TinyRun& run, int) -> absl::Status {
      const auto source = run.NewPolicySource();
      ASSIGN_OR_RETURN(const StepReport report, source->Step());
      EXPECT_EQ(ValueOf(report, "rl/draft_acceptance"), whole.acceptance);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(DraftRollouts, NeedAModelWithAModule) {
  proto::Rl rl;
  rl.set_drafts(true);
  const absl::Status status = CheckRl(rl, TinyMoe());
  EXPECT_EQ(ExitCode(status), kExitUsage);
  EXPECT_NE(status.message().find("rl.drafts"), std::string::npos) << status;
}

}  // namespace
}  // namespace moebius
