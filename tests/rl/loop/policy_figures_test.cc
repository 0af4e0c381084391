// What a step's samples say in numbers, and what is said where they say nothing.
#include "rl/loop/policy_figures.h"

#include <limits>

#include "core/base/status.h"
#include "gtest/gtest.h"
#include "rl/loop/problem_evaluation.h"
#include "rl/loop/signal_watch.h"
#include "rl/problems/problems.pb.h"
#include "tests/rl/loop/samples.h"
#include "tests/rl/loop/tiny_run.h"

namespace moebius {
namespace {

constexpr std::optional<double> kNoReward = std::nullopt;

std::optional<double> Find(const NamedValues& values, const std::string& name) {
  for (const auto& [key, value] : values) {
    if (key == name) return value;
  }
  return std::nullopt;
}

NamedValues FiguresOf(const std::vector<RolloutGroup>& groups) {
  NamedValues values;
  AddSampleFigures(groups, SignalOf(groups), values);
  return values;
}

TEST(SampleFigures, AreMeansOfWhatWasJudged) {
  const std::vector<RolloutGroup> groups =
      MakeSamples({{1, 0, kNoReward}, {1, 1, 1}, {0, 0, 0}, {kNoReward, kNoReward, kNoReward}});
  const NamedValues values = FiguresOf(groups);
  EXPECT_DOUBLE_EQ(*Find(values, "rl/reward_mean"), 0.5);
  EXPECT_DOUBLE_EQ(*Find(values, "rl/reward_std"), 0.5);
  EXPECT_DOUBLE_EQ(*Find(values, "rl/accuracy"), 0.5);
  EXPECT_DOUBLE_EQ(*Find(values, "rl/zero_variance_groups"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(*Find(values, "rl/zero_variance_all_best"), 1.0 / 3);
  EXPECT_EQ(*Find(values, "rl/left_out"), 4);
  EXPECT_DOUBLE_EQ(*Find(values, "rl/left_out_share"), 4.0 / 12);
}

TEST(SampleFigures, AllBestAreThoseWithEveryAnswerRight) {
  const auto best = [](const std::vector<RolloutGroup>& groups) {
    return Find(FiguresOf(groups), "rl/zero_variance_all_best");
  };
  EXPECT_EQ(best(MakeSamples({{0, 0}, {0, 0}})), 0) << "the highest reward of all, and wrong";
  EXPECT_EQ(best(MakeSamples({{1, 1}, {0, 0}})), 0.5);
  EXPECT_EQ(best(MakeSamples({{1, 1}, {1, kNoReward}})), 1);
  std::vector<RolloutGroup> unequal = MakeSamples({{1, 1}});
  unequal[0].samples[0].score.reward = 0.5;  // right, and longer
  EXPECT_EQ(best(unequal), 0);
  unequal[0].samples[0].score.correct.reset();
  unequal[0].samples[1].score.correct.reset();
  EXPECT_EQ(best(unequal), std::nullopt) << "nobody knows what is right";
}

// Nothing is not the same as 0.
TEST(SampleFigures, OfNothingThereAreNone) {
  const NamedValues values = FiguresOf(MakeSamples({{kNoReward, kNoReward}, {kNoReward, kNoReward}}));
  for (const char* name : {"rl/reward_mean", "rl/reward_std", "rl/accuracy", "rl/zero_variance_groups",
                           "rl/response_tokens_right", "rl/draft_acceptance"}) {
    EXPECT_FALSE(Find(values, name)) << name;
  }
  EXPECT_EQ(*Find(values, "rl/left_out"), 4);
  EXPECT_GT(*Find(values, "rl/response_tokens_mean"), 0);
}

// The mean of many 0.1 is not 0.1, and its square not the mean of their squares.
TEST(SampleFigures, EqualRewardsHaveNoDeviation) {
  for (const double reward : {0.1, 0.3, 1.0 / 3}) {
    for (const size_t n : {3, 7, 128}) {
      const NamedValues values =
          FiguresOf(MakeSamples({std::vector<std::optional<double>>(n, std::optional<double>(reward))}));
      EXPECT_EQ(*Find(values, "rl/reward_std"), 0) << n << " times " << reward;
    }
  }
}

constexpr GroupSignal kJudged{.groups = 3, .flat = 3, .left_out = 0};
constexpr GroupSignal kLeftOut{.groups = 0, .flat = 0, .left_out = 12};

TEST(SampleFigures, GroupsOfOneAnswerHaveNothingToDifferFrom) {
  const NamedValues values = FiguresOf(MakeSamples({{1}, {0}, {1}}));
  EXPECT_FALSE(Find(values, "rl/zero_variance_groups").has_value());
  EXPECT_TRUE(Find(values, "rl/accuracy").has_value());
}

// Every third answer is one that no judge can decide.
class PartlyUndecided final : public ProblemSet {
 public:
  int64_t size() const override { return 30; }
  bool has_dense() const override { return false; }
  Problem At(uint64_t index) const override {
    return {.id = "p", .messages = {{"user", "sort 21="}}, .gold = "12", .index = index};
  }
  WorkedAnswer Demonstration(const Problem&, uint64_t) const override { return {}; }
  absl::StatusOr<Judgement> Judge(const Problem& problem, std::string_view) const override {
    if (problem.index % 3 == 0) return Judgement{.correct = {}, .dense = {}, .verdict = "undecided"};
    return Judgement{.correct = 1, .dense = {}, .verdict = "equal"};
  }
};

// Of each problem's answers one after another, the first being the greedy one: the marks, r right, w wrong
// and u undecided.
class Marked final : public ProblemSet {
 public:
  explicit Marked(std::vector<std::string> marks) : marks_(std::move(marks)), next_(marks_.size()) {}
  int64_t size() const override { return std::ssize(marks_); }
  bool has_dense() const override { return false; }
  Problem At(uint64_t index) const override {
    return {.id = "p", .messages = {{"user", "sort 21="}}, .gold = "12", .index = index};
  }
  WorkedAnswer Demonstration(const Problem&, uint64_t) const override { return {}; }
  absl::StatusOr<Judgement> Judge(const Problem& problem, std::string_view) const override {
    ++asked_;
    const char mark = marks_[problem.index][next_[problem.index]++];
    if (mark == 'u') return Judgement{.correct = {}, .dense = {}, .verdict = "undecided"};
    return Judgement{.correct = mark == 'r' ? 1 : 0, .dense = {}, .verdict = "judged"};
  }
  int asked() const { return asked_; }

 private:
  std::vector<std::string> marks_;
  mutable std::vector<size_t> next_;
  mutable int asked_ = 0;
};

TEST(EvaluateProblems, PassAtKIsOfProblemsWhoseAnswersWereAllJudged) {
  SoloWorld world;
  TinyRun run(*world, {}, SortTwo(TinyDense()));
  proto::Rl rl;
  PolicyModel policy(run.trainer(), 32, rl);
  absl::StatusOr<StepReport> report;
  int asked = 0;
  // An answer without text is not asked for: until all have some.
  for (uint64_t seed = 0; asked < 16 && seed < 50; ++seed) {
    const Marked set({"rrww", "wwww", "wrwu", "uwuw"});
    const Scorer scorer = *Scorer::Make(proto::Reward(), proto::Answer(), set);
    report = EvaluateProblems(run.trainer(), policy, {set, run.codec(), scorer}, {},
                              {.name = "x",
                               .problems = 4,
                               .samples = 3,
                               .rollout = {.max_new = 3, .max_length = 32},
                               .seed = seed});
    ASSERT_TRUE(report.ok()) << report.status();
    asked = set.asked();
  }
  ASSERT_EQ(asked, 16);
  EXPECT_DOUBLE_EQ(*Find(report->values, "eval/x"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*Find(report->values, "eval/x_pass1"), (1.0 / 3 + 0 + 0.5 + 0) / 4);
  EXPECT_DOUBLE_EQ(*Find(report->values, "eval/x_pass3"), 1.0 / 2);
}

TEST(EvaluateProblems, SaysWhatShareItCouldNotJudge) {
  SoloWorld world;
  TinyRun run(*world, {}, SortTwo(TinyDense()));
  const PartlyUndecided set;
  proto::Rl rl;
  PolicyModel policy(run.trainer(), 32, rl);
  const Scorer scorer = *Scorer::Make(proto::Reward(), proto::Answer(), set);
  const absl::StatusOr<StepReport> report =
      EvaluateProblems(run.trainer(), policy, {set, run.codec(), scorer}, {},
                       {.name = "x", .problems = 30, .rollout = {.max_new = 3, .max_length = 32}});
  ASSERT_TRUE(report.ok()) << report.status();
  // An answer without text has no verdict to ask for: it is wrong.
  EXPECT_GT(*Find(report->values, "eval/x_undecided"), 0.3);
  EXPECT_LE(*Find(report->values, "eval/x_undecided"), 1.0 / 3 + 1e-12);
  EXPECT_EQ(report->notes.back().find("warning: many answers are undecided; "), 0u) << report->notes.back();
}

TEST(ShowSamples, ShowsWholeGroups) {
  proto::Problems problems;
  problems.set_kind("sort");
  const auto set = *MakeProblemSet(problems, TaskSplit::kTrain);
  const std::vector<RolloutGroup> groups = MakeSamples({{1, 0, 1}, {1, 0, 1}});
  const std::vector<double> advantages(6, 0.0);
  for (const auto& [most, shown] : {std::pair{0, 0}, {2, 3}, {5, 3}, {6, 6}, {9, 6}})
    EXPECT_EQ(std::ssize(ShowSamples(*set, groups, advantages, most)), shown) << most;
}

TEST(SignalWatchTest, SaysHowManyAnswersCouldNotBeJudged) {
  int64_t without = 0;
  std::vector<std::string> notes;
  EXPECT_TRUE(SignalWatch(4, without).Observe(false, {.groups = 3, .flat = 3, .left_out = 7}, notes).ok());
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("the same reward, but for 7 left out"), std::string::npos) << notes[0];
}

TEST(SignalWatchTest, SaysWhyThereIsNone) {
  for (const bool judged : {true, false}) {
    int64_t without = 0;
    SignalWatch watch(4, without);
    std::vector<std::string> notes;
    EXPECT_TRUE(watch.Observe(true, kJudged, notes).ok());
    EXPECT_TRUE(notes.empty());
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(watch.Observe(false, judged ? kJudged : kLeftOut, notes).ok());
    ASSERT_EQ(notes.size(), 2u);
    EXPECT_NE(notes[0].find(judged ? "earned the same reward" : "no answer could be judged"),
              std::string::npos)
        << notes[0];
    EXPECT_NE(notes[1].find("2 steps in a row; after 2 more"), std::string::npos) << notes[1];
    const absl::Status end = watch.Observe(false, judged ? kJudged : kLeftOut, notes);
    EXPECT_EQ(ExitCode(end), 76);
    EXPECT_EQ(end.message().find("sandbox check") == absl::string_view::npos, judged) << end;
    EXPECT_EQ(end.message().find("SFT first") == absl::string_view::npos, !judged) << end;
  }
}

TEST(SignalWatchTest, ASignalBeginsAnew) {
  int64_t without = 0, more = 0;
  SignalWatch watch(2, without), endless(0, more);
  std::vector<std::string> notes;
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(watch.Observe(false, kJudged, notes).ok());
    EXPECT_TRUE(watch.Observe(true, kJudged, notes).ok());
    EXPECT_TRUE(endless.Observe(false, kJudged, notes).ok());
  }
  EXPECT_TRUE(watch.Observe(false, kJudged, notes).ok());
  SignalWatch resumed(2, without);
  EXPECT_FALSE(resumed.Observe(false, kJudged, notes).ok()) << "a run that was stopped goes on counting";
}

}  // namespace
}  // namespace moebius
