// Verdicts that change, and tests that prompts show.
#include "rl/loop/program_watch.h"

#include <atomic>

#include "core/base/strings.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "gtest/gtest.h"
#include "rl/problems/problems.pb.h"
#include "tests/core/io/scratch.h"
#include "tests/rl/loop/samples.h"

namespace moebius {
namespace {

// Ten problems whose judge depends on time: problem 3's verdicts alternate.
class Moody final : public ProblemSet {
 public:
  explicit Moody(const std::string& tests = "") : tests_(tests) {}
  int64_t size() const override { return 10; }
  bool has_dense() const override { return false; }
  Problem At(uint64_t index) const override {
    return {.id = Concat("moody/", index),
            .messages = {{"user", "?"}},
            .gold = "",
            .index = index % 10,
            .fingerprint = Concat(index % 10, tests_)};
  }
  WorkedAnswer Demonstration(const Problem&, uint64_t) const override { return {}; }
  absl::StatusOr<Judgement> Judge(const Problem& problem, std::string_view) const override {
    const int64_t n = calls_++;
    if (fails_) return Judgement{.correct = {}, .dense = {}, .verdict = "HARNESS", .depends_on_time = true};
    const bool right = problem.index != 3 || n % 2 == 0;
    return Judgement{.correct = right ? 1 : 0,
                     .dense = std::nullopt,
                     .verdict = right ? "OK" : "WALL",
                     .depends_on_time = true};
  }
  int64_t calls() const { return calls_; }
  void set_fails(bool fails) { fails_ = fails; }

 private:
  std::string tests_;
  mutable std::atomic<int64_t> calls_ = 0;
  bool fails_ = false;  // as a sandbox that does not start
};

class ProgramWatchTest : public testing::Test {
 protected:
  // Two hundred groups of four different answers each, judged.
  std::vector<RolloutGroup> Judged(double share, Journal* journal) {
    proto::Reward reward;
    reward.set_judge_again(share);
    const Scorer scorer = *Scorer::Make(reward, proto::Answer(), problems_);
    std::vector<RolloutGroup> groups =
        MakeSamples(std::vector<std::vector<std::optional<double>>>(200, {0, 0, 0, 0}));
    EXPECT_TRUE(ScoreSamples({problems_, *codec_, scorer}, 5, 0, journal, groups).ok());
    return groups;
  }
  static std::vector<int> Twice(const std::vector<RolloutGroup>& groups) {
    std::vector<int> out;  // -1: once
    for (const RolloutGroup& g : groups) {
      for (const RolloutSample& s : g.samples) out.push_back(s.score.differs ? *s.score.differs : -1);
    }
    return out;
  }

  Moody problems_;
  Tokenizer tokenizer_ = *MakeTokenizer("bytes");
  std::optional<PromptCodec> codec_ = *PromptCodec::Create(tokenizer_, {});
  Scratch scratch_;
};

TEST_F(ProgramWatchTest, AShareIsJudgedTwiceAndTheJournalRemembersBoth) {
  std::vector<std::vector<int>> seen;
  for (int again = 0; again < 2; ++again) {
    const auto journal = *Journal::Open(scratch_.path("journal"), 0, 0);
    journal->Begin(1);
    seen.push_back(Twice(Judged(0.1, journal.get())));
  }
  EXPECT_EQ(seen[0], seen[1]);
  const auto twice = std::count_if(seen[0].begin(), seen[0].end(), [](int x) { return x >= 0; });
  EXPECT_GT(twice, 40);
  EXPECT_LT(twice, 130);
  EXPECT_EQ(problems_.calls(), 800 + twice) << "nothing more where all of it is known";
}

TEST_F(ProgramWatchTest, WhatASandboxFailedToJudgeIsJudgedWhenItWorks) {
  problems_.set_fails(true);
  const auto journal = *Journal::Open(scratch_.path("journal"), 0, 0);
  journal->Begin(1);
  for (const RolloutGroup& g : Judged(0, journal.get()))
    for (const RolloutSample& s : g.samples) EXPECT_EQ(s.score.verdict, "HARNESS");
  problems_.set_fails(false);
  for (const RolloutGroup& g : Judged(0, journal.get()))
    for (const RolloutSample& s : g.samples) EXPECT_NE(s.score.verdict, "HARNESS");
}

// A file whose tests were edited, or another way to find the program in the same text, between two runs.
TEST_F(ProgramWatchTest, TheJournalAnswersForTheSameTestsAndTheSameProgramAlone) {
  std::vector<RolloutGroup> groups = MakeSamples({{0, 0}, {0, 0}});
  for (RolloutGroup& g : groups) {
    for (RolloutSample& s : g.samples) s.text = Concat("of ", g.problem, "\n", s.text);
  }
  const auto calls = [&](const Moody& problems, proto::Answer::Where where) {
    proto::Answer answer;
    answer.set_where(where);
    const Scorer scorer = *Scorer::Make(proto::Reward(), answer, problems);
    const auto journal = *Journal::Open(scratch_.path("journal"), 0, 0);
    journal->Begin(1);
    EXPECT_TRUE(ScoreSamples({problems, *codec_, scorer}, 5, 0, journal.get(), groups).ok());
    return problems.calls();
  };
  EXPECT_EQ(calls(Moody(), proto::Answer::WHOLE), 4);
  EXPECT_EQ(calls(Moody(), proto::Answer::WHOLE), 0);
  EXPECT_EQ(calls(Moody(" edited"), proto::Answer::WHOLE), 4);
  EXPECT_EQ(calls(Moody(), proto::Answer::LAST_LINE), 4);
  EXPECT_EQ(calls(Moody(), proto::Answer::WHOLE), 0);
}

TEST_F(ProgramWatchTest, OnlyTheMoodyProblemDiffers) {
  const auto journal = *Journal::Open(scratch_.path("journal"), 0, 0);
  journal->Begin(1);
  const std::vector<RolloutGroup> groups = Judged(1, journal.get());
  int64_t differ = 0;
  for (const RolloutGroup& g : groups) {
    for (const RolloutSample& s : g.samples) {
      ASSERT_TRUE(s.score.differs.has_value());
      differ += *s.score.differs;
      EXPECT_TRUE(g.problem % 10 == 3 || !*s.score.differs) << g.problem;
    }
  }
  EXPECT_GT(differ, 0);
  ProgramWatch watch(problems_);
  StepReport report;
  report.metrics.step = 7;
  watch.Observe(groups, report);
  ASSERT_EQ(report.values.size(), 2u);
  EXPECT_EQ(report.values[0], (std::pair<std::string, double>("rl/judged_twice", 800)));
  EXPECT_EQ(report.values[1].first, "rl/flaky_verdicts");
  EXPECT_EQ(report.values[1].second, static_cast<double>(differ) / 800);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_NE(report.notes[0].find(Concat("warning: flaky verdicts; ", differ, " of 800 ")), std::string::npos)
      << report.notes[0];
  EXPECT_NE(report.notes[0].find("moody/"), std::string::npos);
  // Said once in twenty steps; measured always.
  for (const auto& [step, said] : {std::pair{8, 0}, {26, 0}, {27, 1}, {28, 0}}) {
    StepReport later;
    later.metrics.step = step;
    watch.Observe(groups, later);
    EXPECT_EQ(std::ssize(later.notes), said) << step;
    EXPECT_EQ(later.values.size(), 2u);
  }
}

TEST_F(ProgramWatchTest, WithoutAJournalOrAShareNothingIsJudgedTwice) {
  for (const bool journalled : {false, true}) {
    const auto journal = *Journal::Open(scratch_.path("journal"), 0, 0);
    journal->Begin(1);
    const std::vector<RolloutGroup> groups = Judged(journalled ? 0 : 1, journalled ? journal.get() : nullptr);
    ProgramWatch watch(problems_);
    StepReport report;
    watch.Observe(groups, report);
    EXPECT_TRUE(report.values.empty() && report.notes.empty());
  }
}

TEST_F(ProgramWatchTest, MeasuresTheGapBetweenVisibleAndAllTests) {
  std::vector<RolloutGroup> groups = MakeSamples({{1, 0, 0}, {0, 1, std::nullopt}});
  groups[0].samples[0].score.visible = 1;
  groups[0].samples[1].score.visible = 1;  // passes what it was shown, and no more
  groups[0].samples[2].score.visible = 0;
  groups[1].samples[2].score.visible = 1;  // not judged
  ProgramWatch watch(problems_);
  StepReport report;
  watch.Observe(groups, report);
  ASSERT_EQ(report.values.size(), 1u);
  EXPECT_EQ(report.values[0].first, "rl/visible_hidden_gap");
  EXPECT_DOUBLE_EQ(report.values[0].second, 1.0 / 3);
  EXPECT_TRUE(report.notes.empty());
}

}  // namespace
}  // namespace moebius
