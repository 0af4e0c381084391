#include "launch/report/lines.h"

#include <algorithm>

#include "core/base/strings.h"

namespace moebius {
namespace {

std::string NameOf(const Runs& runs, size_t i, const std::string& label) {
  return runs.size() == 1 ? label : runs[i].name;
}

int ColourOf(const Runs& runs, size_t i, int colour) {
  return runs.size() == 1 ? colour : static_cast<int>(i);
}

std::vector<Point> PointsOf(const RunData& run, const Line& line) {
  if (line.of && !line.of(run)) return {};
  return run.Series(line.metric);
}

void BeginWith(const Runs& runs, Chart* chart) {
  for (const RunData& run : runs) {
    if (run.metrics.empty()) continue;
    const auto first = static_cast<double>(run.metrics.front().step);
    chart->first_x = std::min(first, chart->first_x.value_or(first));
  }
}

}  // namespace

void AddSmoothed(const Runs& runs, const Line& line, Chart* chart) {
  BeginWith(runs, chart);
  // Raw clouds of several lines would hide each other.
  const bool crowded = runs.size() > 1 || !chart->series.empty();
  for (size_t i = 0; i < runs.size(); ++i) {
    for (Series& series : SmoothedSeries(NameOf(runs, i, line.label), ColourOf(runs, i, line.colour),
                                         PointsOf(runs[i], line), chart->log_y)) {
      if (crowded && series.style == LineStyle::kFaint) continue;
      chart->series.push_back(std::move(series));
    }
  }
}

void AddPlain(const Runs& runs, const Line& line, LineStyle style, Chart* chart) {
  BeginWith(runs, chart);
  for (size_t i = 0; i < runs.size(); ++i) {
    chart->series.push_back({.name = NameOf(runs, i, line.label),
                             .colour = ColourOf(runs, i, line.colour),
                             .style = style,
                             .points = PointsOf(runs[i], line)});
  }
}

std::string RenderGroup(const Runs& runs, const LineGroup& group) {
  std::string out;
  Chart chart = group.frame;
  for (const Line& line : group.lines) {
    if (runs.size() > 1) {
      chart = group.frame;
      if (group.lines.size() > 1) chart.title += ": " + line.label;
    }
    AddSmoothed(runs, line, &chart);
    if (runs.size() > 1) out += RenderChart(chart);
  }
  if (runs.size() > 1) return out;
  const auto drawn = std::count_if(chart.series.begin(), chart.series.end(), [](const Series& series) {
    return !series.points.empty() && series.style != LineStyle::kFaint;
  });
  if (drawn > 1) {
    std::erase_if(chart.series, [](const Series& series) { return series.style == LineStyle::kFaint; });
  }
  return RenderChart(chart);
}

bool AnyHas(const Runs& runs, std::string_view metric) {
  return std::any_of(runs.begin(), runs.end(),
                     [&](const RunData& run) { return !run.Series(metric).empty(); });
}

bool AnyDiffers(const Runs& runs, std::string_view metric, double value) {
  for (const RunData& run : runs) {
    for (const Point& p : run.Series(metric)) {
      if (p.y != value) return true;
    }
  }
  return false;
}

}  // namespace moebius
