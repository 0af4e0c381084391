// Steps of reinforcement from prompts to weights.
#include "rl/loop/policy_source.h"

#include <cmath>
#include <filesystem>
#include <tuple>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/hdf5_file.h"
#include "gtest/gtest.h"
#include "optim/checkpoint.h"
#include "parallel/comm/solo_world.h"
#include "rl/loop/archive.h"
#include "rl/loop/sft_source.h"
#include "tests/core/io/scratch.h"
#include "tests/rl/loop/tiny_run.h"

namespace moebius {
namespace {

void AddPart(proto::Reward& reward, const std::string& name, double weight = 1) {
  proto::Reward::Part& part = *reward.add_part();
  part.set_name(name);
  part.set_weight(weight);
}

double Accuracy(StepSource& source) { return ValueOf(*source.Evaluate(), "eval/sort"); }

// A short start by worked answers, so that sampled answers are sometimes right.
void Warm(TinyRun& run, int64_t steps) {
  SftSource sft(run.context(), run.problems(), run.scorer());
  ASSERT_TRUE(RunSteps(sft, steps).ok());
}

class PolicySourceTest : public testing::TestWithParam<const char*> {
 protected:
  static ModelConfig Model() { return std::string(GetParam()) == "gqa" ? TinyDense() : TinyMoe(); }
};

INSTANTIATE_TEST_SUITE_P(Models, PolicySourceTest, testing::Values("gqa", "mla_moe"),
                         [](const auto& info) { return std::string(info.param); });

// Every step compares the sampler's log-probabilities with the training forward's, bit for bit.
TEST_P(PolicySourceTest, LearnsFromRewardsAlone) {
  TinyRunOptions o = SortTwo(Model());
  SoloWorld world;
  TinyRun run(*world, {}, o);
  Warm(run, 25);
  const auto source = run.NewPolicySource();
  const double before = Accuracy(*source);
  // Builds round differently, so their runs part; in 240 steps each has learned.
  const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 240);
  ASSERT_TRUE(reports.ok()) << reports.status();
  const double after = Accuracy(*source);
  RecordProperty("before", Concat(before));
  RecordProperty("after", Concat(after));
  EXPECT_GT(after, before + 0.3) << "from " << before;
  EXPECT_GT(ValueOf(reports->back(), "rl/reward_mean"), ValueOf(reports->front(), "rl/reward_mean") + 0.2);
  for (const StepReport& report : *reports) {
    EXPECT_EQ(ValueOf(report, "rl/mismatch_max"), 0);
    EXPECT_EQ(ValueOf(report, "rl/ratio_mean"), 1);
    EXPECT_EQ(ValueOf(report, "rl/clip_fraction"), 0);
    EXPECT_TRUE(report.stop.ok());
  }
}

// The same without a reward that depends on the answer: nothing leaks from the answers to the weights.
TEST_P(PolicySourceTest, LearnsNothingFromACoin) {
  TinyRunOptions o = SortTwo(Model());
  AddPart(o.reward, "coin");
  SoloWorld world;
  TinyRun run(*world, {}, o);
  Warm(run, 25);
  const auto source = run.NewPolicySource();
  const double before = Accuracy(*source);
  const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 50);
  ASSERT_TRUE(reports.ok()) << reports.status();
  const double after = Accuracy(*source);
  RecordProperty("before", Concat(before));
  RecordProperty("after", Concat(after));
  EXPECT_LT(after, before + 0.12) << "from " << before;
  double reward = 0;
  for (const StepReport& report : *reports) reward += ValueOf(report, "rl/reward_mean") / 50;
  EXPECT_NEAR(reward, 0.5, 0.03);
}

TEST_P(PolicySourceTest, TheSameSeedGivesTheSameBits) {
  std::vector<std::vector<float>> weights;
  for (const auto& [seed, threads] : {std::pair{1, 2}, {1, 2}, {1, 1}, {2, 2}}) {
    TinyRunOptions o = SortTwo(Model());
    o.seed = seed;
    o.threads = threads;
    AddPart(o.reward, "dense");
    SoloWorld world;
    TinyRun run(*world, {}, o);
    const auto source = run.NewPolicySource();
    ASSERT_TRUE(RunSteps(*source, 4).ok());
    weights.push_back(run.Weights());
  }
  EXPECT_EQ(weights[0], weights[1]);
  EXPECT_EQ(weights[0], weights[2]) << "any number of threads";
  EXPECT_NE(weights[0], weights[3]);
}

TEST_P(PolicySourceTest, IsExactInBf16Too) {
  TinyRunOptions o = SortTwo(Model());
  AddPart(o.reward, "dense");
  o.act = DType::kBF16;
  o.rl.set_temperature(0.7);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  const auto source = run.NewPolicySource();
  const std::vector<float> before = run.Weights();
  const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 5);
  ASSERT_TRUE(reports.ok()) << reports.status();
  for (const StepReport& report : *reports) EXPECT_EQ(ValueOf(report, "rl/mismatch_max"), 0);
  EXPECT_NE(run.Weights(), before);
}

// How a step is cut and what it keeps in memory are the trainer's own matter.
TEST_P(PolicySourceTest, IsExactHoweverTheTrainerWorks) {
  const RecomputePolicy parts{.norms = true, .mla_up = true, .swiglu = true}, blocks{.blocks = true};
  std::vector<Layout> layouts = {{}, {.pipeline = 2}};
  if (Model().n_routed_experts > 0) layouts.push_back({.expert = 2});
  for (const auto& [recompute, each, act] : {std::tuple{RecomputePolicy{}, 1, DType::kF32},
                                             {parts, 3, DType::kF32},
                                             {blocks, 5, DType::kF32},
                                             {RecomputePolicy{}, 0, DType::kBF16},
                                             {parts, 2, DType::kBF16}}) {
    for (const Layout& layout : layouts) {
      TinyRunOptions o = SortTwo(Model());
      AddPart(o.reward, "dense");
      o.act = act;
      o.recompute = recompute;
      o.microbatch_sequences = each;
      o.rl.set_updates(2);
      const absl::Status status = OnRanks(layout, o, [&](TinyRun& run, int) -> absl::Status {
        const auto source = run.NewPolicySource();
        ASSIGN_OR_RETURN(const std::vector<StepReport> reports, RunSteps(*source, 2));
        for (const StepReport& report : reports) EXPECT_EQ(ValueOf(report, "rl/mismatch_max"), 0);
        return absl::OkStatus();
      });
      EXPECT_TRUE(status.ok()) << ToText(layout) << " of " << each << ": " << status;
    }
  }
}

// Of three steps: texts, and what they earned.
std::vector<std::string> SamplesOn(const Layout& layout, const TinyRunOptions& options) {
  std::vector<std::string> out;
  const absl::Status status = OnRanks(layout, options, [&](TinyRun& run, int rank) -> absl::Status {
    const auto source = run.NewPolicySource();
    ASSIGN_OR_RETURN(const std::vector<StepReport> reports, RunSteps(*source, 3));
    if (rank != 0) return absl::OkStatus();
    for (const StepReport& report : reports) {
      EXPECT_EQ(ValueOf(report, "rl/mismatch_max"), 0);
      for (const ShownSample& s : report.samples)
        out.push_back(Concat(s.prompt, s.text, " ", s.values.back().second));
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << ToText(layout) << ": " << status;
  return out;
}

TEST_P(PolicySourceTest, AllLayoutsSampleTheSameAnswersExactly) {
  TinyRunOptions o = SortTwo(Model());
  AddPart(o.reward, "dense");
  const std::vector<std::string> want = SamplesOn({}, o);
  EXPECT_EQ(want.size(), 3u * 16 * 8);
  std::vector<Layout> layouts = {{.data = 2}, {.pipeline = 2}};
  if (Model().n_routed_experts > 0) layouts.push_back({.expert = 2});
  for (const Layout& layout : layouts) {
    const std::vector<std::string> got = SamplesOn(layout, o);
    ASSERT_EQ(got.size(), want.size()) << ToText(layout);
    int64_t different = 0;
    for (size_t i = 0; i < got.size(); ++i) different += got[i].substr(0, 11) != want[i].substr(0, 11);
    EXPECT_EQ(different, 0) << ToText(layout);
  }
}

// Each kind of objective and of rollout, from prompts to weights.
TEST_P(PolicySourceTest, EveryObjectiveRuns) {
  struct Case {
    const char* name;
    void (*change)(proto::Rl& rl);
  };
  const Case cases[] = {
      {"several updates", [](proto::Rl& rl) { rl.set_updates(3); }},
      {"entropy bonus", [](proto::Rl& rl) { rl.set_entropy_coefficient(0.01); }},
      {"entropy guard", [](proto::Rl& rl) { rl.set_entropy_floor(2); }},
      {"reinforce++",
       [](proto::Rl& rl) {
         rl.set_advantage(proto::Rl::REINFORCE_PP);
         rl.set_kl(proto::Rl::K1);
         rl.set_kl_in_reward(true);
         rl.set_kl_coefficient(0.05);
       }},
      {"answers alone",
       [](proto::Rl& rl) {
         rl.set_advantage(proto::Rl::REINFORCE_PP);
         rl.set_group_size(1);
       }},
      {"kl loss",
       [](proto::Rl& rl) {
         rl.set_kl(proto::Rl::TRUE_GRADIENT);
         rl.set_kl_coefficient(0.05);
       }},
      {"gspo",
       [](proto::Rl& rl) {
         rl.set_surrogate(proto::Rl::GSPO);
         rl.set_normaliser(proto::Rl::ANSWERS);
         rl.set_updates(2);
       }},
      {"truncated sampling",
       [](proto::Rl& rl) {
         rl.set_temperature(0.8);
         rl.set_top_k(5);
         rl.set_top_p(0.9);
       }},
      {"fast", [](proto::Rl& rl) { rl.set_rollout(proto::Rl::FAST); }},
      {"int8", [](proto::Rl& rl) { rl.set_rollout(proto::Rl::INT8); }},
      {"fast, several updates",
       [](proto::Rl& rl) {
         rl.set_rollout(proto::Rl::FAST);
         rl.set_updates(2);
       }},
      {"refilled", [](proto::Rl& rl) { rl.set_refill_rounds(3); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Scratch scratch;
    TinyRunOptions o = SortTwo(Model());
    AddPart(o.reward, "dense");
    c.change(o.rl);
    SoloWorld world;
    TinyRun run(*world, {}, o);
    ASSERT_TRUE(SaveCheckpoint(scratch.path("start"), run.trainer(), {}).ok());
    const auto source = run.NewPolicySource();
    ASSERT_TRUE(source->Start(scratch.path("start")).ok());
    const std::vector<float> before = run.Weights();
    const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 3);
    ASSERT_TRUE(reports.ok()) << reports.status();
    EXPECT_NE(run.Weights(), before);
    EXPECT_EQ(run.trainer().state().updates, 3 * o.rl.updates());
    for (const StepReport& report : *reports) {
      EXPECT_TRUE(std::isfinite(report.metrics.loss));
      const double gap = ValueOf(report, "rl/mismatch_max");
      if (o.rl.rollout() == proto::Rl::INT8) {
        EXPECT_GT(gap, 1e-3) << "nothing was rounded";
        EXPECT_LE(gap, 0.3);
      } else {  // what top_p cuts off is no gap
        EXPECT_LE(gap, o.rl.rollout() == proto::Rl::FAST ? 1e-4 : 0);
      }
    }
    if (o.rl.kl() == proto::Rl::NO_KL) continue;
    EXPECT_EQ(ValueOf(reports->front(), "rl/kl"), 0) << "the reference is the policy of step 0";
    EXPECT_GT(ValueOf(reports->back(), "rl/kl"), 0);
  }
}

TEST(PolicySource, FillsUpWithNewProblemsWhereGroupsAreFlat) {
  TinyRunOptions o = SortTwo(TinyDense());
  o.rl.set_refill_rounds(4);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  Warm(run, 25);
  const auto source = run.NewPolicySource();
  const uint64_t before = run.trainer().state().sequences;
  const absl::StatusOr<StepReport> report = source->Step();
  ASSERT_TRUE(report.ok()) << report.status();
  const auto asked = static_cast<double>(run.trainer().state().sequences - before);
  EXPECT_GT(asked, 16) << "others were asked";
  EXPECT_EQ(report->samples.size(), 16u * 8);
  // Figures are of all that were asked: the policy is not better than it is because flat groups went.
  EXPECT_EQ(ValueOf(*report, "rl/replaced_groups"), asked - 16);
  double right = 0;
  for (const ShownSample& sample : report->samples) right += sample.values.front().second;
  const double flat = ValueOf(*report, "rl/zero_variance_groups") * asked;
  const double best = ValueOf(*report, "rl/zero_variance_all_best") * asked;
  EXPECT_GE(flat, asked - 16);
  EXPECT_GE(ValueOf(*report, "rl/accuracy") * asked * 8, 8 * best);
  EXPECT_LE(ValueOf(*report, "rl/accuracy") * asked * 8, right + 8 * (asked - 16));
  EXPECT_EQ(ValueOf(*report, "rl/left_out"), 0);
}

// Whatever is asked, all answers earn the same.
TEST(PolicySource, SaysWhenThereIsNothingToLearnFrom) {
  for (const int64_t rounds : {0, 1, 2}) {
    TinyRunOptions o = SortTwo(TinyDense());
    AddPart(o.reward, "repetition");  // of answers of one word: 0
    o.rl.set_refill_rounds(rounds);
    o.rl.set_no_signal_steps(3);
    SoloWorld world;
    TinyRun run(*world, {}, o);
    const auto source = run.NewPolicySource();
    const std::vector<float> before = run.Weights();
    const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 3);
    ASSERT_TRUE(reports.ok()) << reports.status();
    EXPECT_TRUE((*reports)[1].stop.ok());
    EXPECT_EQ(ExitCode((*reports)[2].stop), 76);
    EXPECT_TRUE(Contains((*reports)[2].stop, "no signal"));
    ASSERT_EQ((*reports)[0].notes.size(), 1u);
    EXPECT_NE((*reports)[0].notes[0].find("no signal"), std::string::npos);
    ASSERT_EQ((*reports)[1].notes.size(), 1u) << "halfway";
    EXPECT_EQ((*reports)[1].notes[0],
              "warning: no signal for 2 steps in a row; after 1 more the run saves and ends "
              "(rl.no_signal_steps: 3)");
    EXPECT_EQ(ValueOf((*reports)[0], "rl/zero_variance_groups"), 1);
    EXPECT_EQ(run.Weights(), before);
  }
}

// The coefficient follows from the step's samples: nothing above the floor, the more the farther below.
TEST(PolicySource, AnEntropyFloorHoldsThePolicyOpen) {
  std::vector<double> entropy;
  for (const double floor : {0.0, 1.0}) {
    TinyRunOptions o = SortTwo(TinyDense());
    AddPart(o.reward, "dense");
    if (floor > 0) {
      o.rl.set_entropy_floor(floor);
      o.rl.set_entropy_guard(1);
    }
    SoloWorld world;
    TinyRun run(*world, {}, o);
    const auto source = run.NewPolicySource();
    const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 150);
    ASSERT_TRUE(reports.ok()) << reports.status();
    double last = 0;
    for (size_t i = reports->size() - 20; i < reports->size(); ++i)
      last += ValueOf((*reports)[i], "rl/entropy") / 20;
    entropy.push_back(last);
    if (floor == 0) continue;
    int64_t raised = 0;
    for (const StepReport& report : *reports) {
      const double sampled = ValueOf(report, "rl/entropy_sampled");
      const double want = sampled < floor ? 1 - sampled / floor : 0;
      EXPECT_EQ(ValueOf(report, "rl/entropy_coefficient"), want);
      raised += want > 0;
      EXPECT_NEAR(sampled, ValueOf(report, "rl/entropy"), 0.25) << "an estimate of it";
    }
    EXPECT_GT(raised, 20);
    EXPECT_EQ(ValueOf(reports->front(), "rl/entropy_coefficient"), 0) << "random weights are open enough";
  }
  EXPECT_GT(entropy[1], entropy[0] + 0.1) << entropy[0];
}

TEST(PolicySource, RefusesAPromptThatIsTooLong) {
  TinyRunOptions o = SortTwo(TinyDense());
  o.rl.set_max_new(20);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  const auto source = run.NewPolicySource();
  const absl::StatusOr<StepReport> report = source->Step();
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(ExitCode(report.status()), 64);
  EXPECT_TRUE(Contains(report.status(), "batch.sequence_length 24 less rl.max_new 20 leaves 4"))
      << report.status();
}

TEST(PolicySource, ArchivesItsSteps) {
  const Scratch scratch;
  TinyRunOptions o = SortTwo(TinyDense());
  AddPart(o.reward, "dense");
  o.rl.set_archive_every_steps(2);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  const auto source = run.NewPolicySource(nullptr, scratch.folder());
  const absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, 2);
  ASSERT_TRUE(reports.ok()) << reports.status();
  EXPECT_FALSE(std::filesystem::exists(ArchivePath(scratch.folder(), 1)));
  const Hdf5File file = *Hdf5File::Open(ArchivePath(scratch.folder(), 2));
  std::vector<double> reward((*file.Find("reward")).length);
  ASSERT_TRUE(file.Read("reward", 0, std::span<double>(reward)).ok());
  ASSERT_EQ(reward.size(), 16u * 8);
  for (size_t i = 0; i < reward.size(); ++i) {
    EXPECT_EQ((*reports)[1].samples[i].values.front().second, reward[i]) << i;
  }
  const auto read = [&](const char* name) {
    std::vector<float> values((*file.Find(name)).length);
    EXPECT_TRUE(file.Read(name, 0, std::span<float>(values)).ok()) << name;
    return values;
  };
  const std::vector<float> sampled = read("logprobs"), live = read("live");
  EXPECT_EQ(read("proximal"), sampled) << "exact";
  // The step has made what it rewards likelier: sum of advantage * (live - sampled) is above 0.
  ASSERT_EQ(live.size(), sampled.size());
  std::vector<int64_t> ends(reward.size());
  std::vector<double> advantage(reward.size());
  ASSERT_TRUE(file.Read("token_ends", 0, std::span<int64_t>(ends)).ok());
  ASSERT_TRUE(file.Read("advantage", 0, std::span<double>(advantage)).ok());
  double gain = 0;
  for (size_t i = 0, t = 0; i < ends.size(); ++i) {
    for (; std::cmp_less(t, ends[i]); ++t) gain += advantage[i] * (live[t] - sampled[t]);
  }
  EXPECT_GT(gain, 0);
}

// With a reference that moves, the divergence starts from 0 again; with one that stays, it does not.
TEST(PolicySource, StartTakesTheReferenceThatItIsTold) {
  const Scratch scratch;
  TinyRunOptions o = SortTwo(TinyDense());
  AddPart(o.reward, "dense");
  o.rl.set_kl(proto::Rl::K2);
  o.rl.set_kl_coefficient(0.01);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  ASSERT_TRUE(SaveCheckpoint(scratch.path("start"), run.trainer(), {}).ok());
  const auto source = run.NewPolicySource();
  ASSERT_TRUE(source->Start(scratch.path("start")).ok());
  ASSERT_TRUE(RunSteps(*source, 3).ok());
  ASSERT_TRUE(SaveCheckpoint(scratch.path("later"), run.trainer(), {}).ok());
  for (const bool moves : {false, true}) {
    ASSERT_TRUE(source->Start(scratch.path(moves ? "later" : "start")).ok());
    const absl::StatusOr<StepReport> report = source->Step();
    ASSERT_TRUE(report.ok()) << report.status();
    if (!moves) {
      EXPECT_GT(ValueOf(*report, "rl/kl"), 0);
      ASSERT_TRUE(SaveCheckpoint(scratch.path("later"), run.trainer(), {}).ok());
    } else {
      EXPECT_EQ(ValueOf(*report, "rl/kl"), 0);
    }
  }
}

// Answers that nobody can judge are no zeros.
TEST(PolicySource, AnswersThatCannotBeJudgedAreLeftOut) {
  TinyRunOptions o = SortTwo(TinyDense());
  AddPart(o.reward, "coin");
  o.rl.set_max_new(1);  // few are finished
  o.reward.set_unfinished(proto::Reward::LEFT_OUT);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  const auto source = run.NewPolicySource();
  const absl::StatusOr<StepReport> report = source->Step();
  ASSERT_TRUE(report.ok()) << report.status();
  double judged = 0, heads = 0;
  for (const ShownSample& sample : report->samples) {
    if (sample.values.front().first != "reward") continue;
    ++judged;
    heads += sample.values.front().second;
  }
  ASSERT_GT(judged, 0);
  ASSERT_LT(judged, 60);
  EXPECT_EQ(ValueOf(*report, "rl/left_out"), 128 - judged);
  EXPECT_DOUBLE_EQ(ValueOf(*report, "rl/reward_mean"), heads / judged);
}

TEST(PolicySource, WhereNoAnswerIsJudgedThereAreNoFigures) {
  TinyRunOptions o = SortTwo(TinyDense());
  AddPart(o.reward, "coin");
  o.rl.set_max_new(1);
  o.rl.set_temperature(0.01f);  // always the same token, which is not the end
  o.reward.set_unfinished(proto::Reward::LEFT_OUT);
  SoloWorld world;
  TinyRun run(*world, {}, o);
  const auto source = run.NewPolicySource();
  const absl::StatusOr<StepReport> report = source->Step();
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(ValueOf(*report, "rl/left_out"), 128);
  for (const auto& [name, value] : report->values) {
    for (const char* unknown : {"rl/policy_loss", "rl/entropy", "rl/kl", "rl/ratio_mean", "rl/clip_fraction"})
      EXPECT_NE(name, unknown) << value;
  }
}

}  // namespace
}  // namespace moebius
