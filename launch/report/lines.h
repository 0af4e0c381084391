// One chart's lines from one run or from several compared: with several runs each run has its colour, with
// one run each metric.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/report/chart.h"
#include "launch/report/run_data.h"

namespace moebius {

using Runs = std::vector<RunData>;

// What one metric looks like in a chart: `label` and `colour` are those of a single run's line.
struct Line {
  std::string metric;
  std::string label = {};
  int colour = 0;
  std::function<bool(const RunData&)> of = {};  // the runs that have a line; none given: all
};

// Over the raw values, faintly, where the chart has one line so far.
void AddSmoothed(const Runs& runs, const Line& line, Chart* chart);
void AddPlain(const Runs& runs, const Line& line, LineStyle style, Chart* chart);

// A single run's metrics as smoothed lines of one chart; of several runs one chart a metric, named after
// the frame and the line.
struct LineGroup {
  Chart frame;  // title, labels and style; no series
  std::vector<Line> lines;
};
std::string RenderGroup(const Runs& runs, const LineGroup& group);

// Whether a run has the metric at all; with a value other than `value`.
bool AnyHas(const Runs& runs, std::string_view metric);
bool AnyDiffers(const Runs& runs, std::string_view metric, double value);

}  // namespace moebius
