// Line charts as inline SVG: axes with round ticks and units, colours by CSS class (light and dark), and the
// points beside them for the few lines of JavaScript that show values under the pointer (page_script.cc).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/report/html.h"
#include "launch/report/run_data.h"

namespace moebius {

enum class LineStyle {
  kSolid,
  kFaint,   // the raw values behind a smoothed line: not in the legend, no values under the pointer
  kDotted,  // dots joined by a thin line: few, separate measurements
  kDashed,
};

struct Range {
  double low = 0;
  double high = 0;
};

struct Series {
  std::string name;
  int colour = 0;  // SeriesClass
  LineStyle style = LineStyle::kSolid;
  std::vector<Point> points;  // x rising
  // Beside each point, or empty: the shaded range around it, and the value to show under the pointer where
  // that is not y (layers of a stack).
  std::vector<Range> band = {};
  std::vector<double> shown = {};
};

struct Chart {
  std::string title;
  std::string y_label;
  std::string x_label = "step";
  NumberStyle y_style = NumberStyle::kPlain;
  bool log_y = false;                  // values <= 0 are left out
  bool from_zero = false;              // the y axis starts at 0
  bool draws_bands = true;             // else they are shown under the pointer alone
  std::optional<double> first_x = {};  // where the axis begins at the latest: sparse lines as their run does
  std::vector<Series> series;
};

// The CSS class of the lines and marks of a colour: eight colours, then the same ones dashed, then dotted.
std::string SeriesClass(int colour);

// A <figure>, or "" when no series has a point.
std::string RenderChart(const Chart& chart);

// Layers from zero upwards, each on top of those before. All series have the same x.
std::vector<Series> Stacked(std::vector<Series> layers);

// `name` as a solid smoothed line over its faint raw values; few values stay as they are. For a log axis the
// mean is the geometric one, of the values that such an axis can show.
std::vector<Series> SmoothedSeries(const std::string& name, int colour, std::vector<Point> points,
                                   bool log = false);

// Round tick positions inside [low, high], about `wanted` of them; powers of ten with 2 and 5 when `log`.
std::vector<double> Ticks(double low, double high, int wanted, bool log);

}  // namespace moebius
