#include "launch/report/training_charts.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "launch/report/heat_map.h"

namespace moebius {
namespace {

// A single run's step as a stack of sampling and learning.
std::string StepSplit(const RunData& run) {
  const auto smooth = [&](const char* metric, const char* name, int colour) {
    return SmoothedSeries(name, colour, run.Series(metric)).back();
  };
  std::vector<Series> layers = {smooth("rl/rollout_s", "rollout and rewards", 5),
                                smooth("rl/update_s", "update", 1)};
  if (layers[0].points.size() != layers[1].points.size()) return "";
  return RenderChart({.title = "Step time",
                      .y_label = "what a step is spent on",
                      .y_style = NumberStyle::kSeconds,
                      .from_zero = true,
                      .series = Stacked(std::move(layers))});
}

std::string StepTime(const Runs& runs) {
  if (runs.size() == 1 && AnyHas(runs, "rl/rollout_s")) return StepSplit(runs[0]);
  Chart step{
      .title = "Step time", .y_label = "", .y_style = NumberStyle::kSeconds, .from_zero = true, .series = {}};
  AddSmoothed(runs, {"perf/step_s", "step", 7}, &step);
  Chart rollout = step;
  rollout.title = "Rollout time";
  rollout.y_label = "rewards included, of a step";
  rollout.series.clear();
  AddSmoothed(runs, {"rl/rollout_s", "rollout", 5}, &rollout);
  return RenderChart(step) + RenderChart(rollout);
}

// What a run logs as its loss depends on its task, and losses of two kinds share no axis.
struct LossKind {
  std::string_view metric;  // that such runs have
  std::string_view title, unit;
};
constexpr LossKind kLossKinds[] = {{"rl/policy_loss", "", ""},  // another chart's
                                   {"dpo/margin", "Preference loss", "nats a pair"},
                                   {"distill/kl", "Distillation loss", "nats a token"},
                                   {"sft/answer_tokens", "Cross-entropy", "nats a token of an answer"},
                                   {"train/loss", "Cross-entropy", "nats a token"}};

const LossKind& KindOf(const RunData& run) {
  const auto has = [&](const LossKind& kind) { return !run.Series(kind.metric).empty(); };
  const LossKind* kind = std::find_if(std::begin(kLossKinds), std::end(kLossKinds), has);
  return kind == std::end(kLossKinds) ? *std::prev(kind) : *kind;
}

}  // namespace

std::string LossCharts(const Runs& runs) {
  const bool one = runs.size() == 1;
  Chart validation{.title = "Validation loss", .y_label = "nats a token", .series = {}};
  Chart mtp{.title = "Multi-token prediction loss", .y_label = "nats a token, mean of depths", .series = {}};
  std::string out;
  for (const LossKind& kind : kLossKinds) {
    const auto is_of_kind = [&](const RunData& run) { return &KindOf(run) == &kind; };
    if (kind.title.empty() || std::none_of(runs.begin(), runs.end(), is_of_kind)) continue;
    Chart loss{.title = std::string(kind.title), .y_label = std::string(kind.unit), .series = {}};
    AddSmoothed(runs, {"train/loss", "train", 0, is_of_kind}, &loss);
    if (one) {
      AddSmoothed(runs, {"distill/kl", "divergence from the teacher", 1}, &loss);
      AddSmoothed(runs, {"distill/cross_entropy", "cross-entropy", 2}, &loss);
      AddSmoothed(runs, {"mtp/loss", "MTP", 2}, &loss);
      AddPlain(runs, {"val/part_loss", "validation, a part of the text", 3}, LineStyle::kDotted, &loss);
      AddPlain(runs, {"val/loss", "validation", 1}, LineStyle::kDotted, &loss);
    }
    out += RenderChart(loss);
  }
  Chart bits{.title = "Bits per byte", .y_label = "held-out text", .series = {}};
  Chart part = validation, part_bits = bits;
  part.title += " of a part of the text";
  part_bits.title += " of a part of the text";
  if (one) {
    AddPlain(runs, {"val/part_bpb", "validation, a part of the text", 3}, LineStyle::kDotted, &bits);
    AddPlain(runs, {"val/bpb", "validation", 1}, LineStyle::kDotted, &bits);
    return out + RenderChart(bits);
  }
  AddPlain(runs, {"val/part_loss"}, LineStyle::kDotted, &part);
  AddPlain(runs, {"val/part_bpb"}, LineStyle::kDotted, &part_bits);
  // Of runs that judge the whole text at their end alone the table says what a chart of dots would.
  const auto course = [](const RunData& run) { return run.Series("val/loss").size() > 1; };
  if (std::any_of(runs.begin(), runs.end(), course) || !AnyHas(runs, "val/part_loss")) {
    AddPlain(runs, {"val/loss"}, LineStyle::kDotted, &validation);
    AddPlain(runs, {"val/bpb"}, LineStyle::kDotted, &bits);
  }
  AddSmoothed(runs, {"mtp/loss"}, &mtp);
  return out + RenderChart(part) + RenderChart(validation) + RenderChart(part_bits) + RenderChart(bits) +
         RenderChart(mtp);
}

std::string OptimizerCharts(const Runs& runs) {
  Chart lr{.title = "Learning rate", .y_label = "", .from_zero = true, .series = {}};
  AddPlain(runs, {"train/lr", "learning rate", 4}, LineStyle::kSolid, &lr);
  Chart norm{.title = "Gradient norm", .y_label = "before clipping, log scale", .log_y = true, .series = {}};
  AddSmoothed(runs, {"train/grad_norm", "norm", 3}, &norm);
  return RenderChart(norm) + RenderChart(lr);
}

std::string SpeedCharts(const Runs& runs) {
  LineGroup speed{{.title = "Throughput",
                   .y_label = "tokens a second",
                   .y_style = NumberStyle::kCount,
                   .from_zero = true,
                   .series = {}},
                  {}};
  const bool samples = AnyHas(runs, "rl/rollout_tokens_per_s");
  if (samples) speed.lines.push_back({"rl/rollout_tokens_per_s", "rollout", 5});
  speed.lines.push_back({"perf/tokens_per_s", samples ? "whole step" : "tokens/s", samples ? 1 : 5});
  Chart mfu{.title = "Share of the machine's peak",
            .y_label = "see environment for the basis",
            .y_style = NumberStyle::kPercent,
            .from_zero = true,
            .series = {}};
  AddSmoothed(runs, {"perf/mfu", "MFU", 5}, &mfu);
  Chart drafts{.title = "Drafts accepted",
               .y_label = "share, in rollouts",
               .y_style = NumberStyle::kPercent,
               .from_zero = true,
               .series = {}};
  AddSmoothed(runs, {"rl/draft_acceptance", "accepted", 2}, &drafts);
  Chart memory{
      .title = "Memory", .y_label = "peak", .y_style = NumberStyle::kBytes, .from_zero = true, .series = {}};
  AddPlain(runs, {"mem/peak_bytes", "peak", 6}, LineStyle::kSolid, &memory);
  return RenderGroup(runs, speed) + RenderChart(mfu) + StepTime(runs) + RenderChart(drafts) +
         RenderChart(memory);
}

std::string ExpertCharts(const Runs& runs) {
  Chart violation{.title = "Load violation",
                  .y_label = "(max − mean) / mean, mean of layers",
                  .from_zero = true,
                  .series = {}};
  AddSmoothed(runs, {"moe/max_violation", "violation", 1}, &violation);
  Chart entropy{.title = "Load entropy", .y_label = "1 is perfectly even", .series = {}};
  AddSmoothed(runs, {"moe/load_entropy", "entropy", 2}, &entropy);
  std::string out = Grid(RenderChart(violation) + RenderChart(entropy));
  for (const RunData& run : runs) {
    const std::string maps = RenderExpertLoads(run.loads, run.load_layers, runs.size() == 1 ? 16 : 4);
    if (maps.empty()) continue;
    if (out.find("class='scale'") == std::string::npos) out += RenderLoadScale();
    if (runs.size() > 1) out += "<h3>" + EscapeHtml(run.name) + "</h3>";
    out += maps;
  }
  return out;
}

}  // namespace moebius
