#include "launch/report/policy_charts.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "core/base/strings.h"

namespace moebius {
namespace {

Chart Share(std::string title, std::string y_label) {
  return {.title = std::move(title),
          .y_label = std::move(y_label),
          .y_style = NumberStyle::kPercent,
          .from_zero = true,
          .series = {}};
}

Chart Plain(std::string title, std::string y_label) {
  return {.title = std::move(title), .y_label = std::move(y_label), .series = {}};
}

// A share with its interval: dots, and a band where every dot has one.
Series WithInterval(const RunData& run, const std::string& metric, std::string name, int colour) {
  Series series{
      .name = std::move(name), .colour = colour, .style = LineStyle::kDotted, .points = run.Series(metric)};
  const std::vector<Point> half = run.Series(metric + "_ci");
  if (half.size() != series.points.size()) return series;
  for (size_t i = 0; i < half.size(); ++i) {
    const double y = series.points[i].y;
    series.band.push_back({.low = std::max(0.0, y - half[i].y), .high = std::min(1.0, y + half[i].y)});
  }
  return series;
}

// The numbers k of "eval/NAME_passK", 1 first.
std::set<int64_t> PassCounts(const Runs& runs, const std::string& name) {
  std::set<int64_t> counts;
  for (const RunData& run : runs) {
    for (const std::string& k : run.Names("eval/" + name + "_pass")) counts.insert(std::atoll(k.c_str()));
  }
  return counts;
}

// One evaluation of a single run: all that says how often its answers are right.
std::string AccuracyOfOne(const Runs& runs, const std::string& name) {
  Chart chart = Share("Right answers", Concat(name, "; band: 95 % interval"));
  chart.series.push_back(WithInterval(runs[0], "eval/" + name, "held out, greedy", 0));
  int colour = 2;
  for (const int64_t k : PassCounts(runs, name)) {
    AddPlain(runs, {Concat("eval/", name, "_pass", k), Concat("held out, pass@", k), colour++},
             LineStyle::kDotted, &chart);
  }
  AddSmoothed(runs, {"rl/accuracy", "training, sampled", 1}, &chart);
  return RenderChart(chart);
}

std::string ComparedAccuracy(const Runs& runs, const std::string& name) {
  const bool few = runs.size() <= 4;  // the bands of more hide each other
  Chart chart = Share(Concat("Held out: ", name), few ? "right, greedy; band: 95 % interval"
                                                      : "right, greedy; under the pointer: 95 % interval");
  chart.draws_bands = few;
  for (size_t i = 0; i < runs.size(); ++i)
    chart.series.push_back(WithInterval(runs[i], "eval/" + name, runs[i].name, static_cast<int>(i)));
  std::string out = RenderChart(chart);
  for (const int64_t k : PassCounts(runs, name)) {
    Chart pass = Share(Concat("Held out: ", name, ", pass@", k), "sampled");
    AddPlain(runs, {Concat("eval/", name, "_pass", k), "", 0}, LineStyle::kDotted, &pass);
    out += RenderChart(pass);
  }
  return out;
}

// The runs without values of 0, which stand for "no such answer in this step".
Runs WithoutZeros(const Runs& runs, const std::set<std::string>& metrics) {
  Runs out;
  for (const RunData& run : runs) {
    RunData& to = out.emplace_back();
    to.name = run.name;
    to.metrics = run.metrics;
    for (MetricsRow& row : to.metrics)
      std::erase_if(row.values, [&](const auto& v) { return v.second == 0 && metrics.contains(v.first); });
  }
  return out;
}

}  // namespace

std::string AccuracyCharts(const Runs& runs) {
  std::set<std::string> names;
  for (const RunData& run : runs) {
    for (const std::string& name : run.Evaluations()) names.insert(name);
  }
  std::string out;
  for (const std::string& name : names)
    out += runs.size() == 1 ? AccuracyOfOne(runs, name) : ComparedAccuracy(runs, name);
  if (runs.size() > 1 || names.empty())
    out += RenderGroup(runs, {Share("Right answers in training", "sampled"), {{"rl/accuracy", "right", 1}}});
  return out;
}

std::string RewardCharts(const Runs& runs) {
  std::set<std::string> names;
  for (const RunData& run : runs) {
    for (const std::string& name : run.Names("rl/reward_")) names.insert(name);
  }
  names.erase("mean");
  names.erase("std");
  LineGroup reward{Plain("Reward", "mean of a step's answers"), {{"rl/reward_mean", "reward", 0}}};
  std::string out = RenderGroup(runs, reward);
  // A single part is the reward itself, but for its weight.
  if (names.size() > 1) {
    LineGroup parts{Plain("Parts of the reward", "means, before weighting"), {}};
    int colour = 1;
    for (const std::string& name : names) parts.lines.push_back({"rl/reward_" + name, name, colour++});
    out += RenderGroup(runs, parts);
  }
  return out;
}

std::string AnswerCharts(const Runs& given) {
  if (!AnyHas(given, "rl/response_tokens_mean") && !AnyHas(given, "rl/unfinished")) return "";
  const Runs runs = WithoutZeros(given, {"rl/response_tokens_right", "rl/response_tokens_wrong"});
  Chart length = Plain("Length of answers", "tokens, mean");
  length.y_style = NumberStyle::kCount;
  const bool repeats = AnyDiffers(runs, "rl/repetition", 0);
  LineGroup faults{Share(repeats ? "Faults of answers" : "Unfinished answers", repeats ? "" : "share"),
                   {{"rl/unfinished", repeats ? "cut off at the limit" : "cut off", 1}}};
  if (repeats) faults.lines.push_back({"rl/repetition", "repeated runs of tokens", 3});
  return RenderGroup(runs, {length,
                            {{"rl/response_tokens_mean", "all", 7},
                             {"rl/response_tokens_right", "right", 0},
                             {"rl/response_tokens_wrong", "wrong", 1}}}) +
         RenderGroup(runs, faults);
}

std::string PolicyCharts(const Runs& runs) {
  std::vector<std::string> flat;
  const auto changing = [&](const char* metric, double value, const char* else_say) {
    if (AnyDiffers(runs, metric, value)) return true;
    if (AnyHas(runs, metric)) flat.push_back(else_say);
    return false;
  };
  std::string out =
      RenderGroup(runs, {Plain("Entropy of the policy", "nats a token"), {{"rl/entropy", "entropy", 2}}});
  out += RenderGroup(runs, {Share("Groups without a signal", "all answers earned the same"),
                            {{"rl/zero_variance_groups", "all the same", 1},
                             {"rl/zero_variance_all_best", "all the best", 0}}});
  if (changing("rl/kl", 0, "the policy was the reference")) {
    out += RenderGroup(runs, {Plain("KL to the reference", "nats a token"), {{"rl/kl", "KL", 3}}});
  }
  if (changing("rl/ratio_max", 1, "every importance ratio was 1")) {
    out += RenderGroup(runs, {Plain("Importance ratio", "new policy over old, a token"),
                              {{"rl/ratio_mean", "mean", 0}, {"rl/ratio_max", "largest", 1}}});
  }
  if (changing("rl/clip_fraction", 0, "nothing was clipped")) {
    out += RenderGroup(
        runs, {Share("Clipped tokens", "share"),
               {{"rl/clip_fraction_low", "from below", 0}, {"rl/clip_fraction_high", "from above", 1}}});
  }
  if (changing("rl/mismatch_max", 0, "the sampler's log-probabilities were the trainer's")) {
    out += RenderGroup(runs, {Plain("Sampler against trainer", "largest gap of a log-probability"),
                              {{"rl/mismatch_max", "gap", 6}}});
  }
  if (changing("rl/route_mismatch", 0, "the update's router chose the rollout's experts")) {
    out += RenderGroup(runs, {Share("Routes replayed against the router", "tokens and layers"),
                              {{"rl/route_mismatch", "router chose others", 1}}});
  }
  if (changing("rl/left_out", 0, "every answer could be judged")) {
    out += RenderGroup(runs,
                       {Plain("Answers left out", "could not be judged"), {{"rl/left_out", "left out", 4}}});
  }
  if (changing("rl/flaky_verdicts", 0, "programs judged twice got the same verdict")) {
    out += RenderGroup(runs, {Share("Flaky verdicts", "of programs judged twice"),
                              {{"rl/flaky_verdicts", "another verdict", 1}}});
  }
  if (changing("rl/visible_hidden_gap", 0, "what passed the visible tests passed all")) {
    out += RenderGroup(runs, {Share("Visible against all tests", "share of answers"),
                              {{"rl/visible_hidden_gap", "pass the visible ones alone", 3}}});
  }
  out += RenderGroup(runs, {Plain("Policy loss", ""), {{"rl/policy_loss", "loss", 4}}});
  out = Grid(out);
  if (flat.empty()) return out;
  return Concat(out, "<p class='note'>In every step", runs.size() > 1 ? " of every run" : "", ": ",
                Join(flat, "; "), ".</p>");
}

std::string PreferenceCharts(const Runs& runs) {
  return RenderGroup(runs,
                     {Share("Pairs the right way round", "of a step"), {{"dpo/accuracy", "right", 0}}}) +
         RenderGroup(runs,
                     {Plain("Margin", "β × difference of log ratios, nats"), {{"dpo/margin", "margin", 2}}});
}

}  // namespace moebius
