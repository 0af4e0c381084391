#include "launch/report/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <set>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "launch/progress.h"
#include "launch/report/chart.h"
#include "launch/report/heat_map.h"

namespace moebius {
namespace {

using Runs = std::vector<RunData>;

std::string Fixed(double value, int digits) {
  if (!std::isfinite(value)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

int64_t LastStep(const RunData& run) { return run.metrics.empty() ? 0 : run.metrics.back().step; }

std::string TokenText(const RunData& run) {
  return FormatNumber(LastValue(run.Series("tokens")), NumberStyle::kCount);
}

std::string TimeText(const RunData& run) {
  const double seconds = LastValue(run.Series("time_s"));
  return std::isfinite(seconds) ? HumanSeconds(seconds) : "–";
}

// What "the training loss at the end" is: single steps are noisy.
double FinalLoss(const RunData& run) { return TailMean(run.Series("train/loss"), 20); }

// The line of a metric for each run. With several runs each has its colour, with one run each metric.
void AddSmoothed(const Runs& runs, std::string_view metric, const std::string& label, int colour,
                 Chart* chart) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string name = runs.size() == 1 ? label : runs[i].name;
    for (Series& series :
         SmoothedSeries(name, runs.size() == 1 ? colour : static_cast<int>(i), runs[i].Series(metric))) {
      // Raw clouds of several runs would hide each other.
      if (runs.size() > 1 && series.style == LineStyle::kFaint) continue;
      chart->series.push_back(std::move(series));
    }
  }
}

void AddPlain(const Runs& runs, std::string_view metric, const std::string& label, int colour,
              LineStyle style, Chart* chart) {
  for (size_t i = 0; i < runs.size(); ++i) {
    chart->series.push_back({.name = runs.size() == 1 ? label
                                     : label.empty()  ? runs[i].name
                                                      : runs[i].name + " " + label,
                             .colour = runs.size() == 1 ? colour : static_cast<int>(i),
                             .style = style,
                             .points = runs[i].Series(metric)});
  }
}

std::string LossSection(const Runs& runs) {
  const bool one = runs.size() == 1;
  Chart loss{.title = one ? "Cross-entropy" : "Training loss", .y_label = "nats a token", .series = {}};
  AddSmoothed(runs, "train/loss", "train", 0, &loss);
  Chart validation{.title = "Validation loss", .y_label = "nats a token", .series = {}};
  AddPlain(runs, "val/loss", one ? "validation" : "", 1, LineStyle::kDotted, one ? &loss : &validation);
  Chart mtp{.title = "Multi-token prediction loss", .y_label = "nats a token, mean of depths", .series = {}};
  AddSmoothed(runs, "mtp/loss", "MTP", 2, one ? &loss : &mtp);
  // Two raw clouds in one chart would hide each other.
  std::erase_if(loss.series, [](const Series& s) { return s.colour == 2 && s.style == LineStyle::kFaint; });
  Chart bits{.title = "Bits per byte", .y_label = "held-out text", .series = {}};
  AddPlain(runs, "val/bpb", one ? "validation" : "", 1, LineStyle::kDotted, &bits);
  return RenderChart(loss) + RenderChart(validation) + RenderChart(bits) + RenderChart(mtp);
}

std::string OptimizingSection(const Runs& runs) {
  Chart lr{.title = "Learning rate", .y_label = "", .from_zero = true, .series = {}};
  AddPlain(runs, "train/lr", runs.size() == 1 ? "learning rate" : "", 4, LineStyle::kSolid, &lr);
  Chart norm{.title = "Gradient norm", .y_label = "before clipping, log scale", .log_y = true, .series = {}};
  AddSmoothed(runs, "train/grad_norm", "norm", 3, &norm);
  return RenderChart(norm) + RenderChart(lr);
}

std::string SpeedSection(const Runs& runs) {
  Chart speed{.title = "Throughput",
              .y_label = "tokens a second",
              .y_style = NumberStyle::kCount,
              .from_zero = true,
              .series = {}};
  AddSmoothed(runs, "perf/tokens_per_s", "tokens/s", 5, &speed);
  Chart mfu{.title = "Share of the machine's peak",
            .y_label = "see environment for the basis",
            .y_style = NumberStyle::kPercent,
            .from_zero = true,
            .series = {}};
  AddSmoothed(runs, "perf/mfu", "MFU", 5, &mfu);
  Chart memory{
      .title = "Memory", .y_label = "peak", .y_style = NumberStyle::kBytes, .from_zero = true, .series = {}};
  AddPlain(runs, "mem/peak_bytes", runs.size() == 1 ? "peak" : "", 6, LineStyle::kSolid, &memory);
  Chart step{
      .title = "Step time", .y_label = "", .y_style = NumberStyle::kSeconds, .from_zero = true, .series = {}};
  AddSmoothed(runs, "perf/step_s", "step", 7, &step);
  return RenderChart(speed) + RenderChart(mfu) + RenderChart(step) + RenderChart(memory);
}

std::string BalanceSection(const Runs& runs) {
  Chart violation{.title = "Load violation",
                  .y_label = "(max − mean) / mean, mean of layers",
                  .from_zero = true,
                  .series = {}};
  AddSmoothed(runs, "moe/max_violation", "violation", 1, &violation);
  Chart entropy{.title = "Load entropy", .y_label = "1 is perfectly even", .series = {}};
  AddSmoothed(runs, "moe/load_entropy", "entropy", 2, &entropy);
  std::string out = "<div class='grid2'>" + RenderChart(violation) + RenderChart(entropy) + "</div>";
  for (const RunData& run : runs) {
    const std::string maps = RenderExpertLoads(run.loads, runs.size() == 1 ? 16 : 4);
    if (maps.empty()) continue;
    if (out.find("class='scale'") == std::string::npos) out += RenderLoadScale();
    if (runs.size() > 1) out += "<h3>" + EscapeHtml(run.name) + "</h3>";
    out += maps;
  }
  return out;
}

std::string Tile(const std::string& value, const std::string& label, const std::string& more) {
  return Concat("<div class='tile'><b>", EscapeHtml(value), "</b><span>", EscapeHtml(label), "</span><small>",
                EscapeHtml(more), "</small></div>");
}

std::string Tiles(const RunData& run) {
  const std::string steps = run.RecipeValue("steps");
  const double bpb = LowestValue(run.Series("val/bpb"));
  std::string out = Tile(WithCommas(LastStep(run)), "steps", steps.empty() ? "" : "of " + steps);
  out += Tile(TokenText(run), "tokens", "");
  out += Tile(Fixed(FinalLoss(run), 3), "training loss", "mean of last 20");
  if (const double val = LowestValue(run.Series("val/loss")); std::isfinite(val))
    out += Tile(Fixed(val, 3), "best validation loss", "");
  if (std::isfinite(bpb)) out += Tile(Fixed(bpb, 3), "bits per byte", "best, held-out text");
  out += Tile(FormatNumber(MedianValue(run.Series("perf/tokens_per_s")), NumberStyle::kCount),
              "tokens a second", "median");
  out += Tile(TimeText(run), "wall time", "");
  return "<div class='tiles'>" + out + "</div>\n";
}

std::string ComparisonTable(const Runs& runs) {
  std::string out =
      "<div class='scroll'><table><thead><tr><th>run</th><th>steps</th><th>tokens</th><th>training "
      "loss</th><th>best validation "
      "loss</th><th>bits per byte</th><th>tokens/s</th><th>time</th></tr></thead><tbody>";
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunData& run = runs[i];
    out += Concat("<tr><td class='c", i % 8, "'><i class='mark'></i>", EscapeHtml(run.name), "</td><td>",
                  WithCommas(LastStep(run)), "</td><td>", TokenText(run), "</td><td>",
                  Fixed(FinalLoss(run), 4), "</td><td>", Fixed(LowestValue(run.Series("val/loss")), 4),
                  "</td><td>", Fixed(LowestValue(run.Series("val/bpb")), 4), "</td><td>",
                  FormatNumber(MedianValue(run.Series("perf/tokens_per_s")), NumberStyle::kCount),
                  "</td><td>", TimeText(run), "</td></tr>");
  }
  return out + "</tbody></table></div>\n";
}

// The recipe fields in which the runs differ.
std::string DifferenceTable(const Runs& runs) {
  std::set<std::string> paths;
  for (const RunData& run : runs) {
    for (const auto& [path, value] : run.recipe) paths.insert(path);
  }
  std::string rows;
  for (const std::string& path : paths) {
    std::set<std::string> values;
    std::string cells;
    for (const RunData& run : runs) {
      values.insert(run.RecipeValue(path));
      cells += "<td>" + EscapeHtml(run.RecipeValue(path)) + "</td>";
    }
    if (values.size() > 1) rows += "<tr><td><code>" + EscapeHtml(path) + "</code></td>" + cells + "</tr>";
  }
  if (rows.empty()) return "<p class='note'>The recipes are the same in every value.</p>";
  std::string head = "<th>field</th>";
  for (const RunData& run : runs) head += "<th>" + EscapeHtml(run.name) + "</th>";
  return "<div class='scroll'><table class='left'><thead><tr>" + head + "</tr></thead><tbody>" + rows +
         "</tbody></table></div>\n";
}

// At most `limit` of `steps`, the first and the last among them.
std::vector<int64_t> Spread(const std::set<int64_t>& steps, size_t limit) {
  const std::vector<int64_t> all(steps.begin(), steps.end());
  if (all.size() <= limit) return all;
  std::vector<int64_t> out;
  for (size_t i = 0; i < limit; ++i) out.push_back(all[i * (all.size() - 1) / (limit - 1)]);
  return out;
}

std::string Samples(const RunData& run) {
  std::set<int64_t> steps;
  for (const SampleRow& row : run.samples) steps.insert(row.step);
  std::string out;
  for (const int64_t step : Spread(steps, 12)) {
    std::string texts;
    for (const SampleRow& row : run.samples) {
      if (row.step != step) continue;
      texts += "<p><b>" + EscapeHtml(row.prompt) + "</b>" + EscapeHtml(row.text) + "</p>";
    }
    out += Concat("<div class='sample'><div class='when'>step<br><b>", WithCommas(step),
                  "</b></div><div class='texts'>", texts, "</div></div>");
  }
  return out;
}

std::string Section(const std::string& id, const std::string& title, const std::string& body) {
  if (body.empty()) return "";
  return Concat("<section id='", id, "'><h2>", title, "</h2>", body, "</section>\n");
}

std::string Grid(const std::string& charts) {
  return charts.empty() ? "" : "<div class='grid2'>" + charts + "</div>";
}

std::string RecipeSection(const Runs& runs) {
  std::string out = runs.size() > 1 ? DifferenceTable(runs) : "";
  for (const RunData& run : runs) {
    if (run.recipe_text.empty()) continue;
    out += Concat("<details><summary>", runs.size() > 1 ? EscapeHtml(run.name) + ": " : "",
                  "every value and where it comes from</summary><pre>", EscapeHtml(run.recipe_text),
                  "</pre></details>");
  }
  return out;
}

std::string EnvironmentSection(const Runs& runs) {
  std::string out;
  for (const RunData& run : runs) {
    if (run.environment.empty()) continue;
    std::string rows;
    for (const auto& [key, value] : run.environment) {
      rows += "<tr><td><code>" + EscapeHtml(key) + "</code></td><td>" + EscapeHtml(value) + "</td></tr>";
    }
    if (runs.size() > 1) out += "<h3>" + EscapeHtml(run.name) + "</h3>";
    out += "<div class='scroll'><table class='left'><tbody>" + rows + "</tbody></table></div>";
  }
  return out;
}

}  // namespace

std::string RenderReport(const Runs& runs) {
  CHECK(!runs.empty());
  std::vector<std::string> names;
  for (const RunData& run : runs) names.push_back(run.name);
  const std::string title = Join(names, ", ");
  std::string samples;
  for (const RunData& run : runs) {
    const std::string texts = Samples(run);
    if (runs.size() > 1 && !texts.empty()) samples += "<h3>" + EscapeHtml(run.name) + "</h3>";
    samples += texts;
  }
  const std::string lead = runs.size() == 1 ? "Training run" : Concat("Comparison of ", runs.size(), " runs");
  return Concat(
      "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
      "content='width=device-width, "
      "initial-scale=1'><title>",
      EscapeHtml(title), " · moebius</title>\n<style>", kPageStyle,
      "</style></head>\n<body><header><p "
      "class='kicker'>moebius · ",
      lead, "</p><h1>", EscapeHtml(title),
      "</h1><button id='theme' type='button' aria-label='switch between "
      "light and dark'></button></header>\n<main>\n",
      runs.size() == 1 ? Tiles(runs[0]) : ComparisonTable(runs),
      Section("loss", "Loss", Grid(LossSection(runs))),
      Section("optimizing", "Optimizing", Grid(OptimizingSection(runs))),
      Section("experts", "Experts", BalanceSection(runs)),
      Section("speed", "Speed and memory", Grid(SpeedSection(runs))),
      Section("samples", "Samples over time", samples), Section("recipe", "Recipe", RecipeSection(runs)),
      Section("environment", "Environment", EnvironmentSection(runs)),
      "</main>\n<div id='tip' hidden></div>\n<script>", kPageScript, "</script></body></html>\n");
}

absl::Status WriteReport(const std::vector<std::string>& run_folders, const std::string& out_path) {
  Runs runs;
  for (const std::string& folder : run_folders) {
    ASSIGN_OR_RETURN(runs.emplace_back(), ReadRun(folder));
  }
  return WriteFileAtomically(out_path, RenderReport(runs)).status();
}

std::string TerminalSummary(const RunData& run, size_t columns) {
  std::deque<double> losses;
  for (const Point& p : run.Series("train/loss")) losses.push_back(p.y);
  const std::string steps = run.RecipeValue("steps");
  std::string out = Concat(run.name, ": ", WithCommas(LastStep(run)), steps.empty() ? "" : " of " + steps,
                           " steps, ", TokenText(run), " tokens, ", TimeText(run), "\n");
  if (!losses.empty()) {
    out += Concat("  loss      ", Fixed(losses.front(), 3), " ",
                  Sparkline(losses, std::min<size_t>(columns > 40 ? columns - 40 : 10, 60)), " ",
                  Fixed(FinalLoss(run), 3), "\n");
  }
  const std::vector<Point> val = run.Series("val/loss"), bits = run.Series("val/bpb"),
                           speed = run.Series("perf/tokens_per_s");
  if (!val.empty())
    out += Concat("  val/loss  ", Fixed(LastValue(val), 4), " (best ", Fixed(LowestValue(val), 4), ")\n");
  if (!bits.empty())
    out += Concat("  val/bpb   ", Fixed(LastValue(bits), 4), " (best ", Fixed(LowestValue(bits), 4), ")\n");
  if (!speed.empty())
    out += Concat("  tokens/s  ", FormatNumber(MedianValue(speed), NumberStyle::kCount), " (median)\n");
  return out;
}

}  // namespace moebius
