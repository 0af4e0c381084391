#include "parallel/pipeline/timeline_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "core/base/strings.h"

namespace moebius::timeline_chart {
namespace {

constexpr int kAxisHeight = 26;
constexpr double kSameShare = 1e-6;

std::string Format(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string FormatTime(double value, const std::string& unit) {
  if (unit != "s") return Format("%.4g", value) + (unit.empty() ? "" : " " + unit);
  const double size = std::abs(value);
  if (size >= 1) return Format("%.3g s", value);
  if (size >= 1e-3 || size == 0) return Format("%.3g ms", value * 1e3);
  return Format("%.3g us", value * 1e6);
}

std::string Percent(double share) { return Format("%.1f", 100 * share) + "\u202f%"; }

// The first step of 1, 2, 5, 10, ... that is at least `least`.
double RoundStep(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1, 2, 5}) {
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

const char* ColourClass(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
    case ActionKind::kSendForward:
    case ActionKind::kRecvForward:
      return "f";
    case ActionKind::kBackwardInput:
      return "i";
    case ActionKind::kBackwardWeight:
      return "w";
    case ActionKind::kReduceGrad:
    case ActionKind::kReduceTied:
      return "r";
    case ActionKind::kOptimize:
    case ActionKind::kUpdateBias:
      return "o";
    default:
      return "b";
  }
}

class Chart {
 public:
  Chart(const Timeline& timeline, const Scale& scale)
      : timeline_(timeline),
        scale_(scale),
        row_(timeline.ranks() > 20 ? 22 : 30),
        shares_(SharesOf(timeline)) {
    for (int rank = 0; rank < timeline.ranks(); ++rank)
      held_.push_back(timeline.shape.StagesOf(rank / timeline.shards));
  }

  std::string Section() {
    if (shares_.empty()) {
      return Concat("<section><div class=\"head\"><h2>", Escape(timeline_.title),
                    "</h2><span>no schedule has run in this step</span></div></section>\n");
    }
    const auto [least, worst] =
        std::minmax_element(shares_.begin(), shares_.end(),
                            [](const RankShare& a, const RankShare& b) { return a.bubble < b.bubble; });
    worst_ = worst->bubble;
    ranks_differ_ = worst_ - least->bubble > kSameShare;
    std::string html =
        Concat("<section><div class=\"head\"><h2>", Escape(timeline_.title), "</h2><span>makespan <b>",
               Escape(Time(worst->busy + worst->idle)), "</b></span><span>bubble on the worst rank <b>",
               Percent(worst_), "</b></span>");
    if (!timeline_.peak_activations.empty()) {
      const auto& peaks = timeline_.peak_activations;
      html += Concat("<span>peak live activations <b>",
                     Format("%.4g", *std::max_element(peaks.begin(), peaks.end())), "</b></span>");
    }
    if (!timeline_.note.empty()) html += Concat("<span>", Escape(timeline_.note), "</span>");
    return html + "</div>\n<div class=\"chart\">" + LeftSide() + "<div class=\"scroll\">" + Picture() +
           "</div>" + RightSide() + "</div>\n" + Table() + "</section>\n";
  }

 private:
  int Pitch() const { return row_ + 18; }  // a row: compute, its exchange lane below, a gap
  int Height() const { return timeline_.ranks() * Pitch() + 10 + kAxisHeight; }
  std::string Time(double value) const { return FormatTime(value, timeline_.unit); }
  std::string X(double time) const { return Format("%.4f%%", 100 * (time - scale_.start) / scale_.length); }
  std::string Width(double length) const { return Format("%.4f%%", 100 * length / scale_.length); }

  std::string LeftSide() const {
    std::string html = "<div class=\"side left\"><div style=\"height:10px\"></div>";
    for (int rank = 0; rank < timeline_.ranks(); ++rank) {
      std::vector<std::string> stages;
      for (int stage : held_[rank]) stages.push_back(std::to_string(stage));
      html += Concat("<div style=\"height:", Pitch(), "px\"><span>rank ", rank, "</span><small>stage",
                     stages.size() == 1 ? " " : "s ", Join(stages), "</small></div>");
    }
    return html + "</div>";
  }

  std::string RightSide() const {
    std::string html = "<div class=\"side right\"><div style=\"height:10px\"></div>";
    for (const RankShare& share : shares_) {
      const bool worst = ranks_differ_ && share.bubble > worst_ - kSameShare;
      html +=
          Concat("<div style=\"height:", Pitch(), "px\"><span", worst ? " class=\"worst\"" : "", ">",
                 Percent(share.bubble), "</span><small>idle ", Escape(Time(share.idle)), "</small></div>");
    }
    return html + "<div class=\"cap\">bubble</div></div>";
  }

  std::string Picture() {
    std::string svg = Concat("<svg class=\"z4\" height=\"", Height(), "\" role=\"img\" aria-label=\"",
                             Escape(timeline_.title), " timeline\">", Axis());
    std::vector<std::vector<const TimelineSpan*>> compute(timeline_.ranks());
    for (const TimelineSpan& span : timeline_.spans) {
      if (span.lane == TimelineLane::kCompute) compute[span.rank].push_back(&span);
    }
    for (int rank = 0; rank < timeline_.ranks(); ++rank) {
      std::sort(compute[rank].begin(), compute[rank].end(),
                [](const TimelineSpan* a, const TimelineSpan* b) { return a->start < b->start; });
      svg += Gaps(rank, compute[rank]);
      for (const TimelineSpan* span : compute[rank]) svg += ComputeBox(*span);
    }
    for (const TimelineSpan& span : timeline_.spans) {
      if (span.lane == TimelineLane::kExchange) svg += ExchangeBox(span);
    }
    return svg + "</svg>";
  }

  // Ticks for every zoom level, shown at that level only.
  std::string Axis() const {
    std::string svg;
    const int bottom = Height() - kAxisHeight;
    for (int level = 0; level < kTickLevels; ++level) {
      const double step = RoundStep(scale_.length * 75 / (kLevelZeroWidth * std::pow(2, level)));
      svg += Concat("<g class=\"k", level, "\">");
      for (int k = 0; k * step <= scale_.length * (1 + 1e-9); ++k) {
        const std::string x = Format("%.4f%%", 100 * k * step / scale_.length);
        const char* anchor = k == 0 ? "start" : (k + 0.4) * step > scale_.length ? "end" : "middle";
        svg += Concat("<line class=\"tick\" x1=\"", x, "\" x2=\"", x, "\" y1=\"0\" y2=\"", bottom,
                      "\"/><text class=\"time\" style=\"text-anchor:", anchor, "\" x=\"", x, "\" y=\"",
                      bottom + 12, "\">", Escape(Time(k * step)), "</text>");
      }
      svg += "</g>";
    }
    return svg;
  }

  int Top(int rank) const { return 10 + rank * Pitch() + 4; }

  // What is idle between the first and the last compute of all ranks.
  std::string Gaps(int rank, const std::vector<const TimelineSpan*>& spans) const {
    std::string svg;
    const auto gap = [&](double from, double to) {
      if (to - from < scale_.length * 1e-5) return;
      svg +=
          Concat("<rect class=\"idle\" x=\"", X(from), "\" y=\"", Top(rank), "\" width=\"", Width(to - from),
                 "\" height=\"", row_, "\" data-t=\"idle ", Escape(Time(to - from)), "; rank ", rank, ", ",
                 Escape(Time(from - scale_.start)), " to ", Escape(Time(to - scale_.start)), "\"/>");
    };
    double at = scale_.start;
    for (const TimelineSpan* span : spans) {
      gap(at, span->start);
      at = std::max(at, span->end);
    }
    gap(at, End());
    return svg;
  }

  double End() const {
    double end = scale_.start;
    for (const TimelineSpan& span : timeline_.spans) {
      if (span.lane == TimelineLane::kCompute) end = std::max(end, span.end);
    }
    return end;
  }

  // Direction of the microbatch, or which of the rank's stages: what the paler colours tell.
  int Shade(const Compute& part, int rank) const {
    const Schedule& shape = timeline_.shape;
    if (shape.directions() > 1) return shape.Direction(part.microbatch);
    const auto& held = held_[rank];
    return static_cast<int>(
        std::min<ptrdiff_t>(2, std::lower_bound(held.begin(), held.end(), part.stage) - held.begin()));
  }

  std::string Tip(const TimelineSpan& span) const {
    return Escape(Concat(span.label.empty() ? ToText(span.action) : span.label, "  (",
                         Time(span.end - span.start), "); rank ", span.rank, ", ",
                         Time(span.start - scale_.start), " to ", Time(span.end - scale_.start)));
  }

  std::string ComputeBox(const TimelineSpan& span) const {
    const ComputeParts parts = PartsOf(span.action);
    if (parts.size == 0) return Box(span, nullptr, Top(span.rank), row_);
    std::string svg;
    const int height = row_ / parts.size;
    for (int k = 0; k < parts.size; ++k) {
      svg += Box(span, &parts.parts[k], Top(span.rank) + k * height, height);
    }
    return svg;
  }

  std::string Box(const TimelineSpan& span, const Compute* part, int y, int height) const {
    const int shade = part ? Shade(*part, span.rank) : 0;
    const std::string microbatch = part ? std::to_string(part->microbatch) : "";
    std::string svg =
        Concat("<rect class=\"", ColourClass(part ? part->kind : span.action.kind),
               shade > 0 ? Concat(" s", shade) : "", "\" x=\"", X(span.start), "\" y=\"", y, "\" width=\"",
               Width(span.end - span.start), "\" height=\"", height, "\" rx=\"2.5\"",
               part ? Concat(" data-m=\"", microbatch, "\"") : "", " data-t=\"", Tip(span), "\"/>");
    const double pixels = kLevelZeroWidth * (span.end - span.start) / scale_.length;
    const double needed = 6.5 * static_cast<double>(microbatch.size()) + 1;
    if (microbatch.empty() || pixels <= 0) return svg;
    const double level = std::max(0.0, std::ceil(kLevelsPerDoubling * std::log2(needed / pixels)));
    if (level >= kLevels) return svg;
    return svg + Concat("<text class=\"t", level, shade > 0 ? " d" : "", height < 20 ? " half" : "",
                        "\" x=\"", X((span.start + span.end) / 2), "\" y=\"", y + height / 2.0 + 0.5, "\">",
                        microbatch, "</text>");
  }

  std::string ExchangeBox(const TimelineSpan& span) const {
    return Concat("<rect class=\"", ColourClass(span.action.kind), " x\" x=\"", X(span.start), "\" y=\"",
                  Top(span.rank) + row_ + 2, "\" width=\"", Width(span.end - span.start),
                  "\" height=\"5\" rx=\"1.5\"",
                  span.action.microbatch >= 0 ? Concat(" data-m=\"", span.action.microbatch, "\"") : "",
                  " data-t=\"", Tip(span), "\"/>");
  }

  std::string Table() const {
    const bool peaks = !timeline_.peak_activations.empty();
    std::string html =
        Concat("<details><summary>", Escape(timeline_.title), " figures by rank</summary><table><tr>",
               "<th>rank<th>busy<th>idle<th>bubble", peaks ? "<th>peak live activations" : "", "</tr>");
    for (size_t rank = 0; rank < shares_.size(); ++rank) {
      const RankShare& share = shares_[rank];
      html += Concat("<tr><td>", rank, "<td>", Escape(Time(share.busy)), "<td>", Escape(Time(share.idle)),
                     "<td>", Percent(share.bubble),
                     peaks ? "<td>" + Format("%.4g", timeline_.peak_activations[rank]) : "", "</tr>");
    }
    return html + "</table></details>";
  }

  const Timeline& timeline_;
  const Scale scale_;
  const int row_;
  const std::vector<RankShare> shares_;
  std::vector<std::vector<int>> held_;
  double worst_ = 0;
  bool ranks_differ_ = false;
};

}  // namespace

std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : Printable(text, text.size())) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Scale ScaleOf(const Timeline& timeline) {
  double start = std::numeric_limits<double>::infinity(), end = -start;
  for (const TimelineSpan& span : timeline.spans) {
    start = std::min(start, span.start);
    end = std::max(end, span.end);
  }
  return end > start ? Scale{start, end - start} : Scale{};
}

std::string Section(const Timeline& timeline, const Scale& scale) { return Chart(timeline, scale).Section(); }

}  // namespace moebius::timeline_chart
