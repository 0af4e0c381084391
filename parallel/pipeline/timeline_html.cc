// The timeline page: head, legend, and the charts (timeline_chart.h) one under the other.
#include <algorithm>

#include "core/base/check.h"
#include "core/base/strings.h"
#include "parallel/pipeline/timeline.h"
#include "parallel/pipeline/timeline_chart.h"

namespace moebius {
namespace {

using timeline_chart::Escape;
using timeline_chart::kLevels;
using timeline_chart::Scale;

std::string LevelRules() {
  std::string css;
  for (int level = 0; level < kLevels; ++level)
    css += Concat(level > 0 ? "," : "", ".t", level, ",.k", level);
  css += "{display:none}\n";
  for (int level = 0; level < kLevels; ++level) {
    for (int fits = 0; fits <= level; ++fits) css += Concat(".z", level, " .t", fits, ",");
    css += Concat(".z", level, " .k",
                  std::min(level / timeline_chart::kLevelsPerDoubling, timeline_chart::kTickLevels - 1),
                  "{display:inline}\n");
  }
  return css;
}

std::string Legend(std::span<const Timeline> timelines) {
  bool seen[8] = {};  // F, I, W, B, OVERLAP, transfer, reduction, optimizer
  bool shades = false, directions = false;
  for (const Timeline& timeline : timelines) {
    directions |= timeline.shape.directions() > 1;
    shades |= timeline.shape.stages > timeline.shape.ranks;
    for (const TimelineSpan& span : timeline.spans) {
      const int kind = static_cast<int>(span.action.kind);
      const bool exchange = span.lane == TimelineLane::kExchange;
      const bool reduces =
          span.action.kind == ActionKind::kReduceGrad || span.action.kind == ActionKind::kReduceTied;
      seen[exchange ? (reduces ? 6 : 5) : std::min(kind, 7)] = true;
    }
  }
  std::string html;
  const auto key = [&](bool shown, const std::string& shapes, const char* text) {
    if (shown) html += Concat("<span class=\"key\"><svg>", shapes, "</svg>", text, "</span>");
  };
  const auto box = [](const std::string& css, int y, int height) {
    return Concat("<rect class=\"", css, "\" y=\"", y, "\" width=\"22\" height=\"", height,
                  "\" rx=\"2.5\"/>");
  };
  key(seen[0], box("f", 0, 14), "F forward");
  key(seen[3], box("b", 0, 14), "B backward");
  key(seen[1], box("i", 0, 14), "I input gradient");
  key(seen[2], box("w", 0, 14), "W weight gradient");
  key(seen[4], box("f", 0, 7) + box("b", 7, 7), "overlapped pair");
  key(directions || shades, box("f s1", 0, 14), directions ? "paler: other direction" : "paler: later stage");
  key(seen[5], box("f x", 1, 5) + box("b x", 8, 5), "exchange");
  key(seen[6], box("r x", 4, 5), "gradient reduction");
  key(seen[7], box("o", 0, 14), "optimizer");
  key(true, box("idle", 0, 14), "idle");
  return html;
}

}  // namespace

std::string TimelineHtml(std::span<const Timeline> timelines) {
  CHECK(!timelines.empty());
  const Schedule& shape = timelines[0].shape;
  const bool one_unit = std::all_of(timelines.begin(), timelines.end(), [&](const Timeline& timeline) {
    return timeline.unit == timelines[0].unit;
  });
  std::vector<Scale> scales;
  double longest = 0;
  for (const Timeline& timeline : timelines) {
    scales.push_back(timeline_chart::ScaleOf(timeline));
    longest = std::max(longest, scales.back().length);
  }
  std::string html = Concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>",
      Escape(shape.name), " timeline</title>\n<style>", kTimelineStyle, LevelRules(),
      "</style><style id=\"follow\"></style></head>\n<body><svg width=\"0\" height=\"0\" "
      "style=\"position:absolute\"><defs><pattern id=\"hatch\" width=\"6\" height=\"6\" "
      "patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><line class=\"hatch\" x1=\"0\" "
      "y1=\"0\" "
      "x2=\"0\" y2=\"6\"/></pattern></defs></svg>\n<header><p class=\"kicker\">moebius pipeline "
      "timeline</p><h1>",
      Escape(shape.name), "</h1><p class=\"sub\">", shape.ranks, " pipeline ranks",
      timelines[0].shards > 1 ? Concat(" for each of ", timelines[0].shards, " shards of the batch") : "",
      ", ", shape.stages, " stages, ", shape.microbatches,
      " microbatches; numbers in the boxes are microbatches</p></header>\n<main>");
  html +=
      Concat("<div class=\"bar\">", Legend(timelines),
             "<span class=\"tools\"><button id=\"out\" title=\"zoom out\">&minus;</button><button id=\"in\" "
             "title=\"zoom in (or Ctrl and wheel)\">+</button><button id=\"fit\">fit</button><button "
             "id=\"theme\" title=\"light or dark\">&#9680;</button></span></div>\n");
  for (size_t i = 0; i < timelines.size(); ++i) {
    if (one_unit) scales[i].length = longest;
    html += timeline_chart::Section(timelines[i], scales[i]);
  }
  return html + Concat("</main><div id=\"tip\" hidden></div>\n<script>", kTimelineScript,
                       "</script></body></html>\n");
}

}  // namespace moebius
