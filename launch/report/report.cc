#include "launch/report/report.h"

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "launch/report/policy_charts.h"
#include "launch/report/samples.h"
#include "launch/report/summary.h"
#include "launch/report/training_charts.h"

namespace moebius {
namespace {

std::string KindOf(const Runs& runs) {
  if (runs.size() > 1) return Concat("Comparison of ", runs.size(), " runs");
  const std::string task = runs[0].RecipeValue("task");
  if (task == "GRPO") return "Reinforcement run";
  if (task == "SFT") return "Fine-tuning run";
  if (task == "DPO") return "Preference run";
  return "Training run";
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
  const std::string learned = AccuracyCharts(runs) + RewardCharts(runs) + PreferenceCharts(runs);
  return Concat(
      "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
      "content='width=device-width, "
      "initial-scale=1'><title>",
      EscapeHtml(title), " · moebius</title>\n<style>", kPageStyle,
      "</style></head>\n<body><header><p "
      "class='kicker'>moebius · ",
      KindOf(runs), "</p><h1>", EscapeHtml(title),
      "</h1><button id='theme' type='button' aria-label='switch between "
      "light and dark'></button></header>\n<main>\n",
      runs.size() == 1 ? Tiles(runs[0]) : ComparisonTable(runs),
      Section("learning", learned.empty() ? "Loss" : "Learning", Grid(learned + LossCharts(runs))),
      Section("samples", "Samples", RenderAnswers(runs)),
      Section("length", "Length of answers", Grid(AnswerCharts(runs))),
      Section("policy", "Policy", PolicyCharts(runs)),
      Section("optimizing", "Optimizing", Grid(OptimizerCharts(runs))),
      Section("experts", "Experts", ExpertCharts(runs)),
      Section("speed", "Speed and memory", Grid(SpeedCharts(runs))),
      Section("texts", "Samples over time", RenderTexts(runs)),
      Section("recipe", "Recipe", RecipeSection(runs)),
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

}  // namespace moebius
