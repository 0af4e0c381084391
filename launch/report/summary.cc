#include "launch/report/summary.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <set>

#include "core/base/strings.h"
#include "launch/progress.h"
#include "launch/report/report.h"

namespace moebius {
namespace {

// Single steps are noisy: what a run ends with is a mean of its last twentieth, of at most so many.
constexpr size_t kMostTail = 20;
size_t TailOf(const std::vector<Point>& points) {
  return std::clamp<size_t>(points.size() / 20, 1, kMostTail);
}
double EndOf(const std::vector<Point>& points) { return TailMean(points, TailOf(points)); }
// "mean of last 5"; "" of a single one.
std::string EndText(const std::vector<Point>& points) {
  return TailOf(points) > 1 ? Concat("mean of last ", TailOf(points)) : "";
}

int64_t LastStep(const RunData& run) { return run.metrics.empty() ? 0 : run.metrics.back().step; }

std::string TokenText(const RunData& run) {
  return FormatNumber(LastValue(run.Series("tokens")), NumberStyle::kCount);
}

std::string TimeText(const RunData& run) {
  const double seconds = LastValue(run.Series("time_s"));
  return std::isfinite(seconds) ? HumanSeconds(seconds) : "–";
}

std::string Speed(const RunData& run, std::string_view metric) {
  return FormatNumber(MedianValue(run.Series(metric)), NumberStyle::kCount);
}

std::string Lowest(const RunData& run, std::string_view metric) {
  return Fixed(LowestValue(run.Series(metric)), 4);
}

// Of a part of the validation text, until the whole has been judged.
std::string UntilWhole(const RunData& run, std::string_view metric) {
  return run.Series("val/loss").empty() ? Lowest(run, metric) : Fixed(NAN, 4);
}

bool LearnsByReward(const RunData& run) { return !run.Series("rl/reward_mean").empty(); }

// "The training loss at the end"; none where what is logged as such is a policy loss.
double FinalLoss(const RunData& run) { return LearnsByReward(run) ? NAN : EndOf(run.Series("train/loss")); }

struct Evaluation {
  double value = NAN, half_width = NAN, first = NAN;
  double step = 0, first_step = 0;
};

Evaluation LastEvaluation(const RunData& run, const std::string& name) {
  const std::vector<Point> values = run.Series("eval/" + name);
  if (values.empty()) return {};
  return {.value = values.back().y,
          .half_width = LastValue(run.Series(Concat("eval/", name, "_ci"))),
          .first = values.front().y,
          .step = values.back().x,
          .first_step = values.front().x};
}

// "0.814 ± 0.034"; `between` is the sign with its blanks.
std::string WithHalfWidth(const Evaluation& e, const char* between) {
  return std::isfinite(e.half_width) ? Concat(Fixed(e.value, 3), between, Fixed(e.half_width, 3))
                                     : Fixed(e.value, 3);
}

std::string Tile(const std::string& value, const std::string& label, const std::string& more) {
  return Concat("<div class='tile'><b>", EscapeHtml(value), "</b><span>", EscapeHtml(label), "</span><small>",
                EscapeHtml(more), "</small></div>");
}

std::string EvaluationTile(const RunData& run, const std::string& name) {
  const Evaluation e = LastEvaluation(run, name);
  const std::string start =
      e.first_step < e.step ? Concat("; ", Fixed(e.first, 3), " at step ", static_cast<int64_t>(e.first_step))
                            : "";
  return Tile(Fixed(e.value, 3), name + ", held out",
              std::isfinite(e.half_width) ? Concat("± ", Fixed(e.half_width, 3), start) : start);
}

struct Column {
  std::string head;
  std::function<std::string(const RunData&)> cell;
};

std::vector<Column> Columns(const Runs& runs) {
  std::vector<Column> columns = {
      {"steps", [](const RunData& run) { return WithCommas(LastStep(run)); }},
      {"tokens", TokenText},
      {"training loss at the end", [](const RunData& run) { return Fixed(FinalLoss(run), 4); }},
      {"best validation loss", [](const RunData& run) { return Lowest(run, "val/loss"); }},
      {"bits per byte", [](const RunData& run) { return Lowest(run, "val/bpb"); }},
      {"best validation loss, a part", [](const RunData& run) { return UntilWhole(run, "val/part_loss"); }},
      {"bits per byte, a part", [](const RunData& run) { return UntilWhole(run, "val/part_bpb"); }}};
  std::set<std::string> names;
  for (const RunData& run : runs) {
    for (const std::string& name : run.Evaluations()) names.insert(name);
  }
  for (const std::string& name : names) {
    columns.push_back({name + ", held out", [name](const RunData& run) {
                         return WithHalfWidth(LastEvaluation(run, name), " ± ");
                       }});
  }
  columns.push_back(
      {"reward", [](const RunData& run) { return Fixed(EndOf(run.Series("rl/reward_mean")), 3); }});
  columns.push_back({"answer tokens", [](const RunData& run) {
                       return Fixed(EndOf(run.Series("rl/response_tokens_mean")), 1);
                     }});
  columns.push_back({"tokens/s", [](const RunData& run) { return Speed(run, "perf/tokens_per_s"); }});
  columns.push_back(
      {"rollout tokens/s", [](const RunData& run) { return Speed(run, "rl/rollout_tokens_per_s"); }});
  columns.push_back({"time", TimeText});
  return columns;
}

}  // namespace

std::string Tiles(const RunData& run) {
  const std::string steps = run.RecipeValue("steps");
  std::string out = Tile(WithCommas(LastStep(run)), "steps", steps.empty() ? "" : "of " + steps);
  out += Tile(TokenText(run), "tokens", "");
  for (const std::string& name : run.Evaluations()) out += EvaluationTile(run, name);
  if (LearnsByReward(run)) {
    out +=
        Tile(Fixed(EndOf(run.Series("rl/reward_mean")), 3), "reward", EndText(run.Series("rl/reward_mean")));
    out += Tile(Fixed(EndOf(run.Series("rl/response_tokens_mean")), 1), "tokens an answer",
                EndText(run.Series("rl/response_tokens_mean")));
    out += Tile(Speed(run, "rl/rollout_tokens_per_s"), "rollout tokens/s", "median");
  } else {
    out += Tile(Fixed(FinalLoss(run), 3), "training loss", EndText(run.Series("train/loss")));
  }
  const bool whole = !run.Series("val/loss").empty();
  const char* text = whole ? "lowest, held-out text" : "lowest, a part of the text";
  const double loss = LowestValue(run.Series(whole ? "val/loss" : "val/part_loss"));
  const double bits = LowestValue(run.Series(whole ? "val/bpb" : "val/part_bpb"));
  if (std::isfinite(loss)) out += Tile(Fixed(loss, 3), "validation loss", text);
  if (std::isfinite(bits)) out += Tile(Fixed(bits, 3), "bits per byte", text);
  if (!LearnsByReward(run)) out += Tile(Speed(run, "perf/tokens_per_s"), "tokens a second", "median");
  out += Tile(TimeText(run), "wall time", "");
  return "<div class='tiles'>" + out + "</div>\n";
}

std::string ComparisonTable(const Runs& runs) {
  std::string head = "<th>run</th>";
  std::vector<std::string> rows;
  for (size_t i = 0; i < runs.size(); ++i)
    rows.push_back(Concat("<td class='", SeriesClass(static_cast<int>(i)), "'><i class='mark'></i>",
                          EscapeHtml(runs[i].name), "</td>"));
  for (const Column& column : Columns(runs)) {
    std::vector<std::string> cells;
    for (const RunData& run : runs) cells.push_back(column.cell(run));
    if (std::all_of(cells.begin(), cells.end(), [](const std::string& cell) { return cell == "–"; }))
      continue;
    head += "<th>" + EscapeHtml(column.head) + "</th>";
    for (size_t i = 0; i < runs.size(); ++i) rows[i] += "<td>" + EscapeHtml(cells[i]) + "</td>";
  }
  std::string out = "<div class='scroll'><table><thead><tr>" + head + "</tr></thead><tbody>";
  for (const std::string& row : rows) out += "<tr>" + row + "</tr>";
  return out + "</tbody></table></div>\n";
}

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

std::string TerminalSummary(const RunData& run, size_t columns) {
  const std::string steps = run.RecipeValue("steps");
  std::string out = Concat(run.name, ": ", WithCommas(LastStep(run)), steps.empty() ? "" : " of " + steps,
                           " steps, ", TokenText(run), " tokens, ", TimeText(run), "\n");
  const auto curve = [&](std::string_view metric, const char* label) {
    const std::vector<Point> points = run.Series(metric);
    std::deque<double> values;
    for (const Point& p : points) values.push_back(p.y);
    if (values.empty()) return std::string();
    return Concat(label, Fixed(values.front(), 3), " ",
                  Sparkline(values, std::min<size_t>(columns > 40 ? columns - 40 : 10, 60)), " ",
                  Fixed(EndOf(points), 3),
                  TailOf(points) > 1 ? Concat(" (", EndText(points), ")") : std::string(), "\n");
  };
  out += LearnsByReward(run) ? curve("rl/reward_mean", "  reward    ") : curve("train/loss", "  loss      ");
  for (const char* metric : {"val/part_loss", "val/part_bpb", "val/loss", "val/bpb"}) {
    const std::vector<Point> values = run.Series(metric);
    if (values.empty()) continue;
    const size_t width = std::string_view(metric).size();
    out += Concat("  ", metric, std::string(width < 10 ? 10 - width : 1, ' '), Fixed(LastValue(values), 4),
                  values.size() > 1 ? Concat(" (best ", Lowest(run, metric), ")") : "", "\n");
  }
  for (const std::string& name : run.Evaluations()) {
    const Evaluation e = LastEvaluation(run, name);
    out += Concat("  eval/", name, "  ", WithHalfWidth(e, " +- "), " at step ", static_cast<int64_t>(e.step));
    if (e.first_step < e.step)
      out += Concat(" (", Fixed(e.first, 3), " at step ", static_cast<int64_t>(e.first_step), ")");
    out += "\n";
  }
  const char* speed = LearnsByReward(run) ? "rl/rollout_tokens_per_s" : "perf/tokens_per_s";
  if (!run.Series(speed).empty()) {
    out +=
        Concat("  tokens/s  ", Speed(run, speed), LearnsByReward(run) ? " of rollouts" : "", " (median)\n");
  }
  return out;
}

}  // namespace moebius
