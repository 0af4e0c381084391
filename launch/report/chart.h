// Line charts as inline SVG: axes with round ticks and units, colours by CSS class (light and dark), and the
// points beside them for the few lines of JavaScript that show values under the pointer (page_assets.cc).
#pragma once

#include <string>
#include <vector>

#include "launch/report/run_data.h"

namespace moebius {

// How numbers of an axis read: 1.2k, 3.4 GiB, 250 ms, 1.5e-4.
enum class NumberStyle { kPlain, kCount, kBytes, kSeconds, kPercent };

enum class LineStyle {
  kSolid,
  kFaint,   // the raw values behind a smoothed line: not in the legend, no values under the pointer
  kDotted,  // dots joined by a thin line: few, separate measurements
  kDashed,
};

struct Series {
  std::string name;
  int colour = 0;  // 0..7: CSS classes c0..c7
  LineStyle style = LineStyle::kSolid;
  std::vector<Point> points;  // x rising
};

struct Chart {
  std::string title;
  std::string y_label;
  std::string x_label = "step";
  NumberStyle y_style = NumberStyle::kPlain;
  bool log_y = false;      // values <= 0 are left out
  bool from_zero = false;  // the y axis starts at 0
  std::vector<Series> series;
};

// A <figure>, or "" when no series has a point.
std::string RenderChart(const Chart& chart);

// `name` as a solid smoothed line over its faint raw values; few values stay as they are.
std::vector<Series> SmoothedSeries(const std::string& name, int colour, const std::vector<Point>& points);

// Round tick positions inside [low, high], about `wanted` of them; powers of ten with 2 and 5 when `log`.
std::vector<double> Ticks(double low, double high, int wanted, bool log);

std::string FormatNumber(double value, NumberStyle style);

// Text safe inside HTML and attributes; invalid UTF-8 and control characters are shown as \xNN.
std::string EscapeHtml(std::string_view text);

}  // namespace moebius
