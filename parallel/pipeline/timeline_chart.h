// One chart of the timeline page: rows of ranks as an inline SVG, with their stages and bubbles at its sides.
// Internal to parallel/pipeline.
//
// Positions are percent of the chart's width, so that zooming is only a wider chart. Labels and ticks carry
// the zoom level from which they fit as a class (t0, t1, ...; k0, ...), shown by a class on the <svg> (z0,
// z1, ...).
#pragma once

#include <string>
#include <string_view>

#include "parallel/pipeline/timeline.h"

namespace moebius::timeline_chart {

// Zoom levels by the chart's width in pixels: level 0 to 600, four to each doubling. As in the script.
inline constexpr double kLevelZeroWidth = 600;
inline constexpr int kLevelsPerDoubling = 4;
inline constexpr int kLevels = 29;
inline constexpr int kTickLevels = 6;  // one to each doubling

// The time that all charts of a page share, or one chart's own.
struct Scale {
  double start = 0;
  double length = 1;
};
Scale ScaleOf(const Timeline& timeline);

// A <section>: title and figures, the chart, a table by rank.
std::string Section(const Timeline& timeline, const Scale& scale);

// Text safe inside HTML and attributes.
std::string Escape(std::string_view text);

}  // namespace moebius::timeline_chart
