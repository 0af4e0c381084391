// The pages of runs that learn to answer: evaluations with their intervals, and every step's judged answers.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/json.h"
#include "launch/report/answer_card.h"
#include "launch/report/chart.h"
#include "launch/report/report.h"
#include "launch/report/samples.h"
#include "launch/report/training_charts.h"
#include "rl/problems/problems.pb.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

SampleRow Answer(int64_t step, const std::string& text, double reward, double advantage) {
  return {.step = step,
          .prompt = "add 2 3 <b>now</b>",
          .text = text,
          .values = {{"reward", reward}, {"correct", reward}, {"advantage", advantage}},
          .gold = "5",
          .verdict = reward > 0 ? "equal" : "different"};
}

// Reinforcement as rl/loop/policy_source.cc logs it, evaluated at steps 0 and `steps`.
void WriteRun(const TempFolder& folder, const std::string& name, int steps) {
  std::string metrics = "{\"step\":0,\"eval/add\":0.25,\"eval/add_ci\":0.125}\n";
  for (int step = 1; step <= steps; ++step) {
    MetricsRow row{.step = step, .values = {}};
    row.Set("time_s", step);
    row.Set("tokens", 100.0 * step);
    row.Set("train/loss", 0.01);
    row.Set("perf/step_s", 0.75);
    row.Set("rl/policy_loss", 0.01);
    row.Set("rl/entropy", 1.0 / step);
    row.Set("rl/ratio_max", 1);
    row.Set("rl/clip_fraction", 0);
    row.Set("rl/reward_mean", 0.5);
    row.Set("rl/reward_correct", 0.5);
    row.Set("rl/reward_dense", 0.75);
    row.Set("rl/accuracy", 0.5);
    row.Set("rl/response_tokens_mean", 6);
    row.Set("rl/response_tokens_right", step == 1 ? 0 : 5);
    row.Set("rl/response_tokens_wrong", 7);
    row.Set("rl/rollout_tokens_per_s", 4000);
    row.Set("rl/rollout_s", 0.5);
    row.Set("rl/update_s", 0.25);
    if (step == steps) row.Set("eval/add", 0.75);
    if (step == steps) row.Set("eval/add_ci", 0.0625);
    if (step == steps) row.Set("eval/add_pass1", 0.5);
    metrics += MetricsLine(row) + "\n";
    char file[64];
    std::snprintf(file, sizeof file, "/samples/step-%08d.jsonl", step);
    std::string lines = SampleLine(Answer(step, "<think>2 + 3</think>5", 1, 0.5)) + "\n";
    lines += SampleLine(Answer(step, "<think>2 + 3</think>5", 1, 0.5)) + "\n";
    lines += SampleLine(Answer(step, Concat("<img onerror='x'> in step ", step), 0, -1.5)) + "\n";
    folder.Write(name + file, lines);
  }
  folder.Write(name + "/metrics.jsonl", metrics);
  folder.Write(name + "/recipe.resolved.textproto",
               Concat("name: \"", name, "\"\ntask: GRPO\nsteps: ", steps, "\n"));
}

TEST(RlReport, HoldsTheAnswersOfEveryStepEscaped) {
  const TempFolder folder;
  WriteRun(folder, "r", 12);
  ASSERT_TRUE(WriteReport({folder.File("r")}, folder.File("r.html")).ok());
  const std::string html = folder.Read("r.html");
  EXPECT_EQ(Count(html, "<article class='step'"), 12u);
  for (int step = 1; step <= 12; ++step) {
    EXPECT_TRUE(Contains(html, Concat("data-step='", step, "'"))) << step;
    EXPECT_TRUE(Contains(html, Concat("&lt;img onerror=&#39;x&#39;&gt; in step ", step, "<"))) << step;
  }
  EXPECT_FALSE(Contains(html, "<img")) << "text of a model is no HTML";
  EXPECT_FALSE(Contains(html, "<b>now")) << "neither is a prompt";
  for (const char* part : {"http:", "https:", "src=", "href=", "url(", "@import"})
    EXPECT_FALSE(Contains(html, part)) << part;
}

TEST(RlReport, TellsThoughtsFromAnswersAndShowsLikeOnesOnce) {
  const TempFolder folder;
  WriteRun(folder, "r", 1);
  const std::string html = RenderAnswers({*ReadRun(folder.File("r"))});
  EXPECT_TRUE(Contains(html,
                       "<div class='thoughts'>&lt;think&gt;2 + 3&lt;/think&gt;</div>"
                       "<div class='answer'>5</div>"))
      << html;
  EXPECT_EQ(Count(html, "<div class='card "), 2u);
  EXPECT_TRUE(Contains(html, "<span class='verdict'><b>2 ×</b> equal</span>"));
  const size_t up = html.find("card up"), down = html.find("card down");
  ASSERT_NE(up, std::string::npos);
  EXPECT_LT(up, down) << "the greatest advantage first";
  EXPECT_TRUE(Contains(html, "▲ +0.5</b>") && Contains(html, "▼ −1.5</b>")) << "signs without colours";
  EXPECT_TRUE(Contains(html, "whole step: reward 0.500, right 0.500"));
}

TEST(RlReport, ShowsAnswersThatNobodyComparedOrCouldJudge) {
  RunData run;
  run.samples.push_back(Answer(1, "5", 1, NAN));
  EXPECT_TRUE(Contains(RenderAnswers({run}), "<b class='adv'>not judged</b>"));
  run.samples[0].values = {{"correct", 1}};
  const std::string html = RenderAnswers({run});
  EXPECT_FALSE(Contains(html, "class='adv")) << html;
  EXPECT_TRUE(Contains(html, "<div class='answer'>5</div>") && Contains(html, "equal"));
}

TEST(RlReport, SaysWhatTheRunLearned) {
  const TempFolder folder;
  WriteRun(folder, "r", 3);
  const RunData run = *ReadRun(folder.File("r"));
  EXPECT_EQ(run.Evaluations(), std::vector<std::string>{"add"});
  const std::string html = RenderReport({run});
  for (const char* part :
       {"Reinforcement run", "Right answers", "add; band: 95 % interval", "held out, pass@1",
        "training, sampled", "Parts of the reward", "Length of answers", "Entropy of the policy", "Step time",
        "rollout and rewards", "± 0.062; 0.250 at step 0",
        "In every step: every importance ratio was 1; nothing was clipped."}) {
    EXPECT_TRUE(Contains(html, part)) << part;
  }
  EXPECT_FALSE(Contains(html, "Cross-entropy")) << "a policy loss is none";
  EXPECT_FALSE(Contains(html, "nan"));
  // The interval of step 0 reaches from 0.125 to 0.375, and that is what stands under the pointer.
  EXPECT_TRUE(Contains(html, "25 % (12.5 % to 37.5 %)"));
  EXPECT_TRUE(Contains(html, "<path class='band c0' d='M62.0"));
  const std::string text = TerminalSummary(run, 80);
  EXPECT_TRUE(Contains(text, "eval/add  0.750 +- 0.062 at step 3 (0.250 at step 0)")) << text;
  EXPECT_TRUE(Contains(text, "  reward    0.500")) << text;
}

TEST(RlReport, LeavesLengthsOfAnswersThatDoNotExistOut) {
  const TempFolder folder;
  WriteRun(folder, "r", 3);
  const std::string html = RenderReport({*ReadRun(folder.File("r"))});
  // In step 1 no answer was right.
  EXPECT_TRUE(
      Contains(html, "{&quot;n&quot;:&quot;right&quot;,&quot;c&quot;:&quot;c0&quot;,&quot;p&quot;:[[2,5,"));
}

TEST(RlReport, ComparesRunsOfDifferentTasks) {
  const TempFolder folder;
  WriteRun(folder, "a", 4);
  WriteRun(folder, "b", 2);
  folder.Write("sft/metrics.jsonl",
               "{\"step\":0,\"eval/add\":0.1}\n{\"step\":1,\"train/loss\":2,\"sft/answer_tokens\":9}\n");
  ASSERT_TRUE(
      WriteReport({folder.File("a"), folder.File("b"), folder.File("sft")}, folder.File("c.html")).ok());
  const std::string html = folder.Read("c.html");
  EXPECT_TRUE(Contains(html, "<th>add, held out</th>"));
  EXPECT_TRUE(Contains(html, "0.750 ± 0.062"));
  EXPECT_FALSE(Contains(html, "<th>bits per byte</th>")) << "no run has any";
  EXPECT_TRUE(Contains(html, "Held out: add"));
  EXPECT_TRUE(Contains(html, "Parts of the reward: dense"));
  EXPECT_EQ(Count(html, "<div class='picker'"), 2u);
}

TEST(RlReport, KeepsLongRunsSmallByCuttingTextsBeforeSteps) {
  RunData run;
  for (int step = 1; step <= 200; ++step) {
    for (int i = 0; i < 8; ++i)
      run.samples.push_back(
          Answer(step, Concat("begin ", step, " ", i, std::string(6000, 'x'), " end"), 0, -i));
  }
  const std::string all = RenderAnswers({run});
  EXPECT_LT(all.size(), 1'800'000u);
  EXPECT_EQ(Count(all, "<article class='step'"), 200u);
  EXPECT_TRUE(Contains(all, "begin 77 3x") && Contains(all, "x end") && Contains(all, " bytes left out … "));
  const std::string few = RenderAnswers({run}, 60'000);
  EXPECT_LT(few.size(), 80'000u);
  EXPECT_TRUE(Contains(few, "data-step='1'") && Contains(few, "data-step='200'"));
  EXPECT_TRUE(Contains(few, " of 200 steps, evenly spaced"));
}

TEST(RlReport, SplitsTextsWhereTheScorerReadsThem) {
  proto::Answer answer;
  answer.set_where(proto::Answer::LAST_LINE);
  const auto parts = [](const proto::Answer& form, std::string_view text) {
    return SplitAnswer(*AnswerForm::Make(form), text);
  };
  EXPECT_EQ(parts(answer, "3+5=8,8-2=6!\n(3+5)-2\n").before, "3+5=8,8-2=6!\n");
  EXPECT_EQ(parts(answer, "3+5=8,8-2=6!\n(3+5)-2\n").answer, "(3+5)-2");
  answer.set_where(proto::Answer::TAGS);
  EXPECT_EQ(parts(answer, "<think>12</think><answer>12</answer>").before, "<think>12</think><answer>");
  EXPECT_EQ(parts(answer, "<answer>12</answer> so 12").after, "</answer> so 12") << "not the last 12";
  EXPECT_EQ(parts(answer, "<think>12 and then").before, "<think>12 and then");
  EXPECT_EQ(parts(answer, "<think>12 and then").answer, "") << "thoughts that never end hold no answer";
  answer.set_where(proto::Answer::BOXED);
  EXPECT_EQ(parts(answer, "\\boxed{12}, that is 12").before, "\\boxed{");
  EXPECT_EQ(parts(answer, "\\boxed{1} or \\boxed{2}").answer, "\\boxed{1} or \\boxed{2}") << "one list";
  answer.set_where(proto::Answer::LAST_NUMBER);
  EXPECT_EQ(parts(answer, "12 and 12.").before, "12 and ");
  EXPECT_EQ(SplitAnswer(std::nullopt, "5").answer, "5");
}

TEST(RlReport, CutsTextsBetweenCharacters) {
  const std::string text = ShortenedHtml("ääääääääääääääääääää", 11);
  EXPECT_FALSE(Contains(text, "\\x")) << text;
  EXPECT_TRUE(Contains(text, "ää<span class='cut'>")) << text;
  EXPECT_EQ(ShortenedHtml("a<b", 3), "a&lt;b");
}

TEST(Chart, TicksThatDifferLittleReadDifferently) {
  const auto chart = [](std::vector<Point> points) {
    return RenderChart({.title = "t", .y_label = "", .series = {{.name = "s", .points = std::move(points)}}});
  };
  const std::string close = chart({{100000, 10.0001}, {100040, 10.0004}});
  EXPECT_TRUE(Contains(close, ">10.0002<") && Contains(close, ">10.0003<")) << close;
  EXPECT_TRUE(Contains(close, ">100.01k<") && Contains(close, ">100.02k<")) << close;
  const std::string one = chart({{1, 5}});
  EXPECT_TRUE(Contains(one, ">1</text>")) << one;
  EXPECT_FALSE(Contains(one, ">0.2</text>")) << "no step is a fifth: " << one;
}

TEST(Chart, ANinthRunIsDashed) {
  Chart chart{.title = "t", .y_label = "", .series = {}};
  for (int i = 0; i < 9; ++i)
    chart.series.push_back({.name = Concat("run ", i), .colour = i, .points = {{1, 1}, {2, 1.0 * i}}});
  const std::string html = RenderChart(chart);
  EXPECT_EQ(Count(html, "<path class='line solid c0' "), 1u);
  EXPECT_EQ(Count(html, "<path class='line solid c0 again' "), 1u);
}

// One evaluation has an interval too.
TEST(Chart, ASingleValuesBandIsABar) {
  const std::string html =
      RenderChart({.title = "t",
                   .y_label = "",
                   .series = {{.name = "s", .points = {{1, 0.5}}, .band = {{.low = 0.4, .high = 0.6}}}}});
  EXPECT_TRUE(Contains(html, "<path class='line thin c0' d='M626.0 ")) << html;
}

// The script reads what stands behind data-chart as JSON.
TEST(Chart, AnyNameIsJson) {
  const std::string html = RenderChart(
      {.title = "t", .y_label = "", .series = {{.name = "a\"b\\c\xff\x7f\n", .points = {{1, 1}}}}});
  const size_t begin = html.find("data-chart='") + 12;
  std::string json = html.substr(begin, html.find('\'', begin) - begin);
  for (size_t at; (at = json.find("&quot;")) != json.npos;) json.replace(at, 6, "\"");
  const auto read = ParseJson(json, "data-chart");
  ASSERT_TRUE(read.ok()) << read.status() << json;
  EXPECT_EQ((*read)["s"][0]["n"], "a\"b\\c\\xFF\\x7F\\x0A");
}

TEST(RlReport, LossesOfDifferentKindsHaveChartsOfTheirOwn) {
  const auto run = [](const char* name, const char* metric) {
    RunData out;
    out.name = name;
    for (int step = 1; step <= 2; ++step) {
      MetricsRow row{.step = step, .values = {{"train/loss", 1.0}}};
      if (*metric != 0) row.values.emplace_back(metric, 1.0);
      out.metrics.push_back(row);
    }
    return out;
  };
  const std::string html = LossCharts({run("sft", "sft/answer_tokens"), run("dpo", "dpo/margin"),
                                       run("text", ""), run("grpo", "rl/policy_loss")});
  EXPECT_EQ(Count(html, "<figure"), 3u);
  EXPECT_TRUE(Contains(html, "nats a pair") && Contains(html, "nats a token of an answer")) << html;
  EXPECT_EQ(Count(html, "<path class='line"), 3u) << "a policy loss is none";
}

TEST(Chart, StacksLayersAndShowsTheirOwnValues) {
  const std::vector<Series> stack =
      Stacked({{.name = "a", .points = {{1, 2}, {2, 3}}}, {.name = "b", .points = {{1, 10}, {2, 20}}}});
  EXPECT_EQ(stack[1].points[1].y, 23);
  EXPECT_EQ(stack[1].band[1].low, 3);
  EXPECT_EQ(stack[1].shown[1], 20);
}

TEST(Chart, TakesValuesThatDifferByRoundingForEqual) {
  Chart chart{.title = "t", .y_label = "", .series = {{.name = "s", .points = {}}}};
  for (int i = 0; i < 10; ++i)
    chart.series[0].points.push_back({double(i), i % 2 ? 6 : std::nextafter(6, 7)});
  EXPECT_LT(RenderChart(chart).size(), 10'000u) << "ticks of a range of 1e-15 never end";
}

TEST(Chart, LabelsAConstantOfZeroWithPlainNumbers) {
  const Chart chart{.title = "t", .y_label = "", .series = {{.name = "s", .points = {{0, 0}, {1, 0}}}}};
  EXPECT_TRUE(Contains(RenderChart(chart), ">0.5</text>")) << RenderChart(chart);
}

TEST(Chart, DrawsBandsOverTheirWholeRange) {
  Chart chart{.title = "t",
              .y_label = "",
              .from_zero = true,
              .series = {{.name = "s", .points = {{0, 50}, {100, 50}}, .band = {{0, 60}, {40, 100}}}}};
  // 640 x 300 with margins 62, 14, 14 and 44; the axis ends 6 % above the band's 100.
  EXPECT_TRUE(Contains(RenderChart(chart),
                       "<path class='band c0' d='M62.0 119.0L626.0 27.7L626.0 164.7L62.0 256.0z'/>"))
      << RenderChart(chart);
}

}  // namespace
}  // namespace moebius
