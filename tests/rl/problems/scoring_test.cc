// Where answers are found, and what each part of a reward is.
#include "rl/problems/scoring.h"

#include <map>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "rl/problems/problems.pb.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

proto::Answer FormOf(proto::Answer::Where where) {
  proto::Answer answer;
  answer.set_where(where);
  return answer;
}

std::string Found(const proto::Answer& answer, std::string_view text) {
  return (*AnswerForm::Make(answer)).Extract(text).value_or("(none)");
}

TEST(AnswerFormTest, FindsTheLastAnswerBehindTheThoughts) {
  struct Case {
    proto::Answer::Where where;
    std::string text, answer;
  };
  using A = proto::Answer;
  for (const Case& c :
       std::vector<Case>{{A::WHOLE, " 42\n", "42"},
                         {A::WHOLE, "<think>41?</think>\n42", "42"},
                         {A::WHOLE, "<think>a</think>b</think>42", "42"},
                         {A::WHOLE, "<think>42", "(none)"},
                         {A::WHOLE, "<think>a</think>42<think>", "(none)"},
                         {A::WHOLE, " \n", "(none)"},
                         {A::TAGS, "<think>a</think><answer> 42 </answer>", "42"},
                         {A::TAGS, "<answer>41</answer> no <answer>42</answer>", "42"},
                         {A::TAGS, "<think><answer>41</answer></think>42", "(none)"},
                         {A::TAGS, "<answer>42", "(none)"},
                         {A::TAGS, "</answer>42<answer>", "(none)"},
                         {A::TAGS, "<answer> </answer>", "(none)"},
                         {A::TAGS, "42", "(none)"},
                         {A::BOXED, "so \\boxed{41}, no: \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"},
                         {A::BOXED, "\\boxed{1} or \\boxed{2}", "1, 2"},
                         {A::BOXED, "the answer is 42", "(none)"},
                         {A::BOXED, "<think>\\boxed{41}</think>42", "(none)"},
                         {A::BOXED, "\\boxed{42} <answer>41</answer>", "42"},
                         {A::BOXED, "<answer>\\boxed{41}</answer>, so \\boxed{42}", "42"},
                         {A::BOXED, "<answer>42</answer>", "(none)"},
                         {A::LAST_LINE, "3+5=8?\n(3+5)*2\n\n", "(3+5)*2"},
                         {A::LAST_LINE, "42", "42"},
                         {A::LAST_LINE, "\n \n", "(none)"},
                         {A::LAST_LINE, "<think>a\nb</think>c\nd", "d"},
                         {A::LAST_NUMBER, "<think>3</think>12 * 5 = -$1,060.", "-1060"},
                         {A::LAST_NUMBER, "no idea", "(none)"}})
    EXPECT_EQ(Found(FormOf(c.where), c.text), c.answer) << c.text;
}

TEST(AnswerFormTest, TagsAndOpenedThoughtsAreTheCallersChoice) {
  proto::Answer answer = FormOf(proto::Answer::TAGS);
  answer.set_think_tag("t");
  answer.set_answer_tag("a");
  EXPECT_EQ(Found(answer, "<t>x</t><a>1</a>"), "1");
  EXPECT_EQ(Found(answer, "<think><a>1</a>"), "1");
  answer.set_opens_thinking(true);
  EXPECT_EQ(Found(answer, "x</t><a>1</a>"), "1");
  EXPECT_EQ(Found(answer, "<a>1</a>"), "(none)");
  answer = FormOf(proto::Answer::WHOLE);
  answer.set_think_tag("");
  EXPECT_EQ(Found(answer, "<think>1"), "<think>1");
}

TEST(AnswerFormTest, WhatItWritesItFinds) {
  for (const auto where :
       {proto::Answer::WHOLE, proto::Answer::TAGS, proto::Answer::BOXED, proto::Answer::LAST_LINE}) {
    for (const bool opened : {false, true}) {
      for (const char* thoughts : {"", "first this, then that"}) {
        proto::Answer answer = FormOf(where);
        answer.set_opens_thinking(opened);
        const AnswerForm form = *AnswerForm::Make(answer);
        const std::string text = form.Write({.thoughts = thoughts, .answer = "(3+5)*2"});
        EXPECT_EQ(form.Extract(text), "(3+5)*2") << text;
        EXPECT_NE(text.find(thoughts), std::string::npos);
        EXPECT_EQ(text.find("</think>") != std::string::npos,
                  opened || where == proto::Answer::TAGS || (*thoughts && where != proto::Answer::LAST_LINE))
            << text;
        if (form.format()) {
          EXPECT_EQ(FormatReward(*form.format(), text), 1) << text;
        }
      }
    }
  }
  const AnswerForm lines = *AnswerForm::Make(FormOf(proto::Answer::LAST_LINE));
  EXPECT_EQ(lines.Write({.thoughts = "3+5=8!", .answer = "3+5"}), "3+5=8!\n3+5");
  EXPECT_EQ(lines.Write({.thoughts = "", .answer = "3+5"}), "3+5");
}

TEST(AnswerFormTest, MistakesNameTheirField) {
  const auto message = [](const proto::Answer& answer) {
    const auto form = AnswerForm::Make(answer);
    EXPECT_EQ(ExitCode(form.status()), kExitUsage);
    return std::string(form.status().message());
  };
  proto::Answer answer = FormOf(proto::Answer::TAGS);
  answer.set_answer_tag("");
  EXPECT_NE(message(answer).find("answer.answer_tag"), std::string::npos);
  answer.set_answer_tag("think");
  EXPECT_NE(message(answer).find("answer.think_tag"), std::string::npos);
  answer.set_answer_tag("<a>");
  EXPECT_NE(message(answer).find("answer.answer_tag"), std::string::npos);
  answer = FormOf(proto::Answer::WHOLE);
  answer.set_think_tag("");
  answer.set_opens_thinking(true);
  EXPECT_NE(message(answer).find("answer.opens_thinking"), std::string::npos);
}

class ScorerTest : public testing::Test {
 protected:
  ScorerTest() {
    proto::Problems problems;
    problems.set_kind("sort");
    problems_ = *MakeProblemSet(problems, TaskSplit::kTrain);
    problem_ = problems_->At(0);
  }
  proto::Reward::Part* Add(const std::string& name, double weight = 1) {
    proto::Reward::Part* part = reward_.add_part();
    part->set_name(name);
    part->set_weight(weight);
    return part;
  }
  Scorer Make() const {
    auto scorer = Scorer::Make(reward_, answer_, *problems_);
    EXPECT_TRUE(scorer.ok()) << scorer.status();
    return *std::move(scorer);
  }
  ScoredAnswer Score(const SampledAnswer& answer) const { return *Make().Score(problem_, answer); }
  std::string ErrorOf() const {
    const auto scorer = Scorer::Make(reward_, answer_, *problems_);
    EXPECT_EQ(ExitCode(scorer.status()), kExitUsage) << scorer.status();
    return std::string(scorer.status().message());
  }

  std::unique_ptr<ProblemSet> problems_;
  Problem problem_;
  proto::Reward reward_;
  proto::Answer answer_;
};

TEST_F(ScorerTest, WithoutPartsTheRewardIsCorrectness) {
  const ScoredAnswer right = Score({.text = " " + problem_.gold + "\n"});
  EXPECT_EQ(right.reward, 1);
  EXPECT_EQ(right.correct, 1);
  EXPECT_EQ(right.verdict, "equal");
  EXPECT_EQ(right.extracted, problem_.gold);
  EXPECT_EQ(right.parts, (std::vector<std::pair<std::string, double>>{{"correct", 1}}));
  const ScoredAnswer wrong = Score({.text = "x"});
  EXPECT_EQ(wrong.reward, 0);
  EXPECT_EQ(wrong.correct, 0);
  EXPECT_EQ(wrong.verdict, "different");
}

TEST_F(ScorerTest, PartsAreWeighedAndReportedWithoutWeights) {
  answer_.set_where(proto::Answer::TAGS);
  Add("correct", 2);
  Add("dense", 0.5);
  Add("format", 0.25)->set_partial_credit(true);
  Add("language", 0.1);
  proto::Reward::Part* repetition = Add("repetition", 4);
  repetition->set_words(1);
  proto::Reward::Part* overlong = Add("overlong", 3);
  overlong->set_max_tokens(20);
  overlong->set_margin_tokens(10);
  // One of four words repeats; 15 tokens are half way into the margin.
  const std::string text =
      Concat("<think> so so ja </think><answer>", problem_.gold.substr(0, 4), "x</answer>");
  const ScoredAnswer scored = Score({.text = text, .num_tokens = 15});
  const std::map<std::string, double> parts(scored.parts.begin(), scored.parts.end());
  EXPECT_EQ(parts.at("correct"), 0);
  EXPECT_DOUBLE_EQ(parts.at("dense"), 0.8);
  EXPECT_EQ(parts.at("format"), 1);
  EXPECT_EQ(parts.at("language"), 1);
  EXPECT_DOUBLE_EQ(parts.at("repetition"), -0.2);  // "<think>", "so", "so", "ja", "</think>..."
  EXPECT_DOUBLE_EQ(parts.at("overlong"), -0.5);
  EXPECT_NEAR(*scored.reward, 0.5 * 0.8 + 0.25 + 0.1 - 4 * 0.2 - 3 * 0.5, 1e-12);
  EXPECT_EQ(scored.extracted, problem_.gold.substr(0, 4) + "x");
  const ScoredAnswer broken = Score({.text = "<think>" + problem_.gold, .num_tokens = 3});
  const std::map<std::string, double> few(broken.parts.begin(), broken.parts.end());
  EXPECT_DOUBLE_EQ(few.at("format"), 0.2);
  EXPECT_EQ(few.at("dense"), 0);
  EXPECT_EQ(few.at("overlong"), 0);
  EXPECT_EQ(broken.verdict, "none");
  EXPECT_EQ(broken.correct, 0);
  EXPECT_EQ(broken.extracted, "");
}

// An answer that is a number alone would be left out of every step.
TEST_F(ScorerTest, AnAnswerWithoutLettersIsOfEveryLanguage) {
  Add("correct");
  Add("language", 0.5);
  const ScoredAnswer scored = Score({.text = problem_.gold});
  EXPECT_EQ(scored.reward, 1.5);
  EXPECT_EQ(scored.parts.size(), 2u);
  EXPECT_EQ(Score({.text = "\u0434\u0430"}).reward, 0) << "Russian, where latin is wanted";
}

TEST_F(ScorerTest, AShortAnswerRepeatsNothing) {
  Add("repetition");
  EXPECT_EQ(Score({.text = "one"}).reward, 0);
  EXPECT_EQ(Score({.text = "one one one one"}).reward, -0.5);
}

TEST_F(ScorerTest, UndecidedAnswersHaveNoReward) {
  const Scorer scorer = Make();
  const ScoredAnswer scored = scorer.Combine(
      problem_, {.text = "5"}, {.correct = std::nullopt, .dense = std::nullopt, .verdict = "undecided"});
  EXPECT_FALSE(scored.reward.has_value());
  EXPECT_FALSE(scored.correct.has_value());
  EXPECT_EQ(scored.verdict, "undecided");
}

TEST_F(ScorerTest, UnfinishedAnswersAreJudgedWrongOrLeftOut) {
  const SampledAnswer cut{.text = problem_.gold, .num_tokens = 5, .finished = false};
  EXPECT_EQ(Score(cut).reward, 1);
  reward_.set_unfinished(proto::Reward::WRONG);
  const ScoredAnswer wrong = Score(cut);
  EXPECT_EQ(wrong.reward, 0);
  EXPECT_EQ(wrong.correct, 0);
  EXPECT_EQ(wrong.verdict, "unfinished");
  EXPECT_EQ(Score({.text = problem_.gold}).reward, 1);
  reward_.set_unfinished(proto::Reward::LEFT_OUT);
  const ScoredAnswer left_out = Score(cut);
  EXPECT_FALSE(left_out.reward.has_value());
  EXPECT_EQ(left_out.correct, 1);
}

TEST_F(ScorerTest, TheCoinIsFairAndKnowsNothingOfTheAnswer) {
  Add("coin");
  const Scorer scorer = Make();
  double heads = 0, changed = 0;
  constexpr int kTosses = 4000;
  for (uint64_t i = 0; i < kTosses; ++i) {
    const Problem problem = problems_->At(i % 50);
    const SampledAnswer answer{.text = "x", .seed = 3, .sample = i / 50};
    const ScoredAnswer scored = *scorer.Score(problem, answer);
    heads += *scored.reward;
    EXPECT_EQ(scored.correct, 0);
    SampledAnswer right = answer;
    right.text = problem.gold;
    EXPECT_EQ((*scorer.Score(problem, right)).reward, scored.reward);
    SampledAnswer other = answer;
    other.seed = 4;
    changed += (*scorer.Score(problem, other)).reward != scored.reward;
  }
  EXPECT_NEAR(heads / kTosses, 0.5, 0.04);  // five standard deviations
  EXPECT_NEAR(changed / kTosses, 0.5, 0.04);
}

TEST_F(ScorerTest, DemonstrationsOfASearchAreFoundAndJudgedAsTheyClaim) {
  proto::Problems problems;
  problems.set_kind("countdown");
  problems.set_countdown_numbers(3);
  problems.set_countdown_highest(9);
  problems.set_countdown_scratchpad(true);
  const auto countdown = *MakeProblemSet(problems, TaskSplit::kTrain);
  answer_.set_where(proto::Answer::LAST_LINE);
  const Scorer scorer = *Scorer::Make(reward_, answer_, *countdown);
  for (uint64_t i = 0; i < 300; ++i) {
    const Problem problem = countdown->At(i);
    const std::string text = scorer.Demonstration(problem, i);
    const ScoredAnswer scored = *scorer.Score(problem, {.text = text});
    EXPECT_EQ(scored.correct, text.find('!') != std::string::npos ? 1 : 0) << text;
  }
}

TEST_F(ScorerTest, MistakesNameTheirField) {
  const auto expect = [&](const std::string& part) {
    EXPECT_NE(ErrorOf().find(part), std::string::npos) << ErrorOf();
    reward_.Clear();
  };
  Add("corect");
  expect("did you mean \"correct\"?");
  Add("correct");
  Add("correct");
  expect("reward.part[1].name");
  Add("format");
  expect("answer.where");
  Add("correct", 1e9);
  expect("reward.part[0].weight");
  Add("correct", 0);
  expect("every weight is 0");
  Add("language")->set_script("klingon");
  expect("reward.part[0].script");
  Add("repetition")->set_words(0);
  expect("reward.part[0].words");
  Add("overlong")->set_max_tokens(5);
  expect("reward.part[0].margin_tokens");

  Scratch scratch;
  proto::Problems lines;
  lines.set_jsonl(scratch.path("a.jsonl"));
  lines.set_held_out(0);
  WriteRaw(scratch.path("a.jsonl"), R"({"question": "1+1?", "answer": 2})");
  problems_ = *MakeProblemSet(lines, TaskSplit::kTrain);
  Add("dense");
  expect("reward.part[0].name is \"dense\"");
}

}  // namespace
}  // namespace moebius
