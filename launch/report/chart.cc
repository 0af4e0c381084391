#include "launch/report/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr double kWidth = 640, kHeight = 300;
constexpr double kLeft = 62, kRight = 14, kTop = 14, kBottom = 44;
constexpr size_t kMaxPoints = 600;

template <typename... Args>
std::string Format(const char* format, Args... args) {
  char text[256];
  std::snprintf(text, sizeof text, format, args...);
  return text;
}

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  double from = 0, to = 1;  // pixels

  double At(double value) const {
    const double share = log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + share * (to - from);
  }
};

template <typename T>
std::vector<T> Chosen(const std::vector<T>& all, const std::vector<size_t>& indices) {
  std::vector<T> out;
  if (all.empty()) return out;
  for (const size_t i : indices) out.push_back(all[i]);
  return out;
}

// Extremes of each of kMaxPoints / 2 buckets, in order: spikes survive, pixels suffice.
void Thin(Series& series) {
  const std::vector<Point>& points = series.points;
  if (points.size() <= kMaxPoints) return;
  std::vector<size_t> kept;
  const size_t buckets = kMaxPoints / 2;
  const auto lower = [](const Point& a, const Point& b) { return a.y < b.y; };
  for (size_t i = 0; i < buckets; ++i) {
    const auto begin = points.begin() + i * points.size() / buckets;
    const auto end = points.begin() + (i + 1) * points.size() / buckets;
    auto [low, high] = std::minmax_element(begin, end, lower);
    if (low > high) std::swap(low, high);
    kept.push_back(low - points.begin());
    if (low != high) kept.push_back(high - points.begin());
  }
  if (kept.front() != 0) kept.insert(kept.begin(), 0);
  if (kept.back() != points.size() - 1) kept.push_back(points.size() - 1);
  series.band = Chosen(series.band, kept);
  series.shown = Chosen(series.shown, kept);
  series.points = Chosen(points, kept);
}

std::string ColourClass(const Series& series) { return SeriesClass(series.colour); }

Axis ValueAxis(const Chart& chart) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Series& series : chart.series) {
    for (const Point& p : series.points) {
      low = std::min(low, p.y);
      high = std::max(high, p.y);
    }
    if (!chart.draws_bands) continue;
    for (const Range& range : series.band) {
      low = std::min(low, range.low);
      high = std::max(high, range.high);
    }
  }
  if (chart.from_zero) low = std::min(low, 0.0);
  if (chart.log_y) {
    const double margin = high / low < 1.5 ? 1.5 : std::pow(high / low, 0.06);
    low /= margin;
    high *= margin;
  } else {
    // Values that differ by rounding alone, as smoothing makes them of equal ones, are equal.
    const double size = std::max(std::fabs(low), std::fabs(high));
    const double margin = high - low > 1e-9 * size ? (high - low) * 0.06 : size > 0 ? size * 0.1 : 1;
    if (!chart.from_zero || low < 0) low -= margin;
    high += margin;
  }
  return {.low = low, .high = high, .log = chart.log_y, .from = kHeight - kBottom, .to = kTop};
}

Axis StepAxis(const Chart& chart) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Series& series : chart.series) {
    if (series.points.empty()) continue;
    low = std::min(low, series.points.front().x);
    high = std::max(high, series.points.back().x);
  }
  low = std::min(low, chart.first_x.value_or(low));
  // From the origin unless the run is far from it: lines of compared runs then start at the same place.
  if (low <= 0.1 * high || low == high) low = std::min(low, 0.0);
  if (high == low) high = low + 1;
  return {.low = low, .high = high, .log = false, .from = kLeft, .to = kWidth - kRight};
}

// One a tick, no two alike: with as many digits as that takes. Round bytes without decimals: there is little
// room beside an axis.
std::vector<std::string> TickTexts(const std::vector<double>& ticks, NumberStyle style) {
  std::vector<std::string> texts;
  for (int more = 0; more < 12; ++more) {
    texts.clear();
    for (const double tick : ticks) {
      std::string& text = texts.emplace_back(FormatNumber(tick, style, more));
      const size_t zeros = text.find(".00 ");
      if (style == NumberStyle::kBytes && zeros != std::string::npos) text.erase(zeros, 3);
    }
    if (std::adjacent_find(texts.begin(), texts.end()) == texts.end()) break;
  }
  return texts;
}

std::string RenderAxes(const Chart& chart, const Axis& x, const Axis& y) {
  std::string out;
  // Bytes are round in powers of 1024.
  const double unit = chart.y_style == NumberStyle::kBytes
                          ? std::pow(1024.0, std::floor(std::log2(std::max(y.high, 1.0)) / 10))
                          : 1.0;
  std::vector<double> values = Ticks(y.low / unit, y.high / unit, 5, y.log);
  for (double& value : values) value *= unit;
  const std::vector<std::string> texts = TickTexts(values, chart.y_style);
  for (size_t i = 0; i < values.size(); ++i) {
    const double tick = values[i], at = y.At(tick);
    // Where values of both signs meet, zero stands out.
    out += Format("<line class='%s' x1='%.0f' x2='%.0f' y1='%.1f' y2='%.1f'/>",
                  tick == 0 && y.low < 0 ? "axis" : "grid", kLeft, kWidth - kRight, at, at);
    out += Format("<text class='tick' text-anchor='end' x='%.0f' y='%.1f'>", kLeft - 8, at + 4) + texts[i] +
           "</text>";
  }
  std::vector<double> steps = Ticks(x.low, x.high, 6, false);
  std::erase_if(steps, [](double step) { return std::fabs(step - std::round(step)) > 1e-9; });
  const std::vector<std::string> step_texts = TickTexts(steps, NumberStyle::kCount);
  for (size_t i = 0; i < steps.size(); ++i) {
    const double at = x.At(steps[i]);
    out += Format("<line class='axis' x1='%.1f' x2='%.1f' y1='%.0f' y2='%.0f'/>", at, at, kHeight - kBottom,
                  kHeight - kBottom + 4);
    out += Format("<text class='tick' text-anchor='middle' x='%.1f' y='%.0f'>", at, kHeight - kBottom + 18) +
           step_texts[i] + "</text>";
  }
  out += Format("<line class='axis' x1='%.0f' x2='%.0f' y1='%.0f' y2='%.0f'/>", kLeft, kWidth - kRight,
                kHeight - kBottom, kHeight - kBottom);
  out += Format("<text class='label' text-anchor='middle' x='%.0f' y='%.0f'>", (kLeft + kWidth - kRight) / 2,
                kHeight - 6) +
         EscapeHtml(chart.x_label) + "</text>";
  return out;
}

std::string RenderLine(const Series& series, const Axis& x, const Axis& y) {
  static constexpr const char* kClasses[] = {"solid", "faint", "thin", "dashed"};
  std::string path, dots;
  for (const Point& p : series.points) {
    path += Format(path.empty() ? "M%.1f %.1f" : "L%.1f %.1f", x.At(p.x), y.At(p.y));
    if (series.style == LineStyle::kDotted || series.points.size() == 1) {
      dots += Format("<circle class='dot %s' r='3' cx='%.1f' cy='%.1f'/>", ColourClass(series).c_str(),
                     x.At(p.x), y.At(p.y));
    }
  }
  return Concat("<path class='line ", kClasses[static_cast<int>(series.style)], " ", ColourClass(series),
                "' d='", path, "'/>", dots);
}

std::string RenderBand(const Series& series, const Axis& x, const Axis& y) {
  if (series.band.empty()) return "";
  if (series.band.size() == 1) {  // one measurement: its interval as a bar
    const double at = x.At(series.points[0].x);
    return Concat("<path class='line thin ", ColourClass(series), "' d='",
                  Format("M%.1f %.1fV%.1f", at, y.At(series.band[0].high), y.At(series.band[0].low)), "'/>");
  }
  std::string path;
  for (size_t i = 0; i < series.band.size(); ++i)
    path += Format(i == 0 ? "M%.1f %.1f" : "L%.1f %.1f", x.At(series.points[i].x), y.At(series.band[i].high));
  for (size_t i = series.band.size(); i-- > 0;)
    path += Format("L%.1f %.1f", x.At(series.points[i].x), y.At(series.band[i].low));
  return Concat("<path class='band ", ColourClass(series), "' d='", path, "z'/>");
}

std::string RenderLegend(const Chart& chart) {
  std::string out;
  for (const Series& series : chart.series) {
    if (series.style == LineStyle::kFaint) continue;
    const char* mark = series.style == LineStyle::kDotted   ? "mark round"
                       : series.style == LineStyle::kDashed ? "mark gap"
                                                            : "mark";
    out += Concat("<span class='", ColourClass(series), "'><i class='", mark, "'></i>",
                  EscapeHtml(series.name), "</span>");
  }
  return "<div class='legend'>" + out + "</div>";
}

// "81.4 % (78 % to 84.8 %)" where there is a band around the value.
std::string PointerText(const Series& series, size_t i, const Chart& chart) {
  if (!series.shown.empty()) return FormatNumber(series.shown[i], chart.y_style);
  const std::string value = FormatNumber(series.points[i].y, chart.y_style);
  if (series.band.empty()) return value;
  return Concat(value, " (", FormatNumber(series.band[i].low, chart.y_style), " to ",
                FormatNumber(series.band[i].high, chart.y_style), ")");
}

// {"x":[left,right,low,high],"y":[bottom,top,low,high,log],"s":[{"n":name,"c":class,"p":[[step,value,text]...]}]}
std::string PointerData(const Chart& chart, const Axis& x, const Axis& y) {
  std::string out = Format("{\"x\":[%g,%g,%.9g,%.9g],\"y\":[%g,%g,%.9g,%.9g,%d],\"s\":[", x.from, x.to, x.low,
                           x.high, y.from, y.to, y.low, y.high, y.log ? 1 : 0);
  bool first = true;
  for (const Series& series : chart.series) {
    if (series.style == LineStyle::kFaint) continue;
    std::string name;
    for (const char c : Printable(series.name))
      name += c == '"' || c == '\\' ? Concat('\\', c) : std::string(1, c);
    out += Concat(first ? "" : ",", "{\"n\":\"", name, "\",\"c\":\"", ColourClass(series), "\",\"p\":[");
    for (size_t i = 0; i < series.points.size(); ++i) {
      const Point& p = series.points[i];
      out += Format(i == 0 ? "[%.9g,%.6g," : ",[%.9g,%.6g,", p.x, p.y) + "\"" +
             PointerText(series, i, chart) + "\"]";
    }
    out += "]}";
    first = false;
  }
  return EscapeHtml(out + "]}");
}

}  // namespace

std::string SeriesClass(int colour) {
  static constexpr const char* kAgain[] = {"", " again", " oncemore"};
  return Concat("c", colour % 8, kAgain[colour / 8 % 3]);
}

std::vector<double> Ticks(double low, double high, int wanted, bool log) {
  std::vector<double> ticks;
  if (log) {
    const double decades = std::log10(high) - std::log10(low);
    const int every = std::max(1, static_cast<int>(std::ceil(decades / (wanted + 1))));
    for (int e = static_cast<int>(std::floor(std::log10(low))); e <= std::ceil(std::log10(high)); ++e) {
      if (e % every != 0) continue;
      for (const double digit : {1.0, 2.0, 5.0}) {
        if (digit != 1.0 && decades > 2.2) continue;
        const double tick = digit * std::pow(10.0, e);
        if (tick >= low && tick <= high) ticks.push_back(tick);
      }
    }
    if (ticks.size() >= 2) return ticks;
    ticks.clear();
  }
  const double raw = (high - low) / wanted;
  const double base = std::pow(10.0, std::floor(std::log10(raw)));
  const double step = raw / base < 1.5   ? base
                      : raw / base < 3.5 ? 2 * base
                      : raw / base < 7.5 ? 5 * base
                                         : 10 * base;
  for (double n = std::ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; ++n)
    ticks.push_back(n * step == 0 ? 0 : n * step);
  return ticks;
}

std::vector<Series> SmoothedSeries(const std::string& name, int colour, std::vector<Point> points, bool log) {
  if (log) std::erase_if(points, [](const Point& p) { return !(p.y > 0); });
  if (points.size() < 40)
    return {{.name = name, .colour = colour, .style = LineStyle::kSolid, .points = points}};
  // Exponential mean over about 1 % of the run, backwards and forwards together, so that the line does not
  // lag behind the values, each by the weight that it has: at an end the one has seen a single value.
  const double keep = 1.0 - 1.0 / std::max(3.0, 0.012 * static_cast<double>(points.size()));
  std::vector<Point> smooth = points;
  for (Point& p : smooth) p.y = 0;
  std::vector<double> weights(points.size(), 0.0);
  const auto sweep = [&](auto begin, auto end, auto target, auto total) {
    double sum = 0, weight = 0;
    for (auto it = begin; it != end; ++it, ++target, ++total) {
      sum = keep * sum + (1 - keep) * (log ? std::log(it->y) : it->y);
      weight = keep * weight + (1 - keep);
      target->y += sum;
      *total += weight;
    }
  };
  sweep(points.begin(), points.end(), smooth.begin(), weights.begin());
  sweep(points.rbegin(), points.rend(), smooth.rbegin(), weights.rbegin());
  for (size_t i = 0; i < smooth.size(); ++i) {
    const double mean = smooth[i].y / weights[i];
    smooth[i].y = log ? std::exp(mean) : mean;
  }
  return {{.name = name, .colour = colour, .style = LineStyle::kFaint, .points = points},
          {.name = name, .colour = colour, .style = LineStyle::kSolid, .points = std::move(smooth)}};
}

std::vector<Series> Stacked(std::vector<Series> layers) {
  std::vector<double> floor;
  for (Series& layer : layers) {
    floor.resize(layer.points.size(), 0.0);
    for (size_t i = 0; i < layer.points.size(); ++i) {
      Point& p = layer.points[i];
      layer.shown.push_back(p.y);
      layer.band.push_back({.low = floor[i], .high = floor[i] + p.y});
      floor[i] = p.y = layer.band.back().high;
    }
  }
  return layers;
}

std::string RenderChart(const Chart& given) {
  Chart chart = given;
  for (Series& series : chart.series) {
    if (chart.log_y) std::erase_if(series.points, [](const Point& p) { return !(p.y > 0); });
    Thin(series);
  }
  std::erase_if(chart.series, [](const Series& series) { return series.points.empty(); });
  if (chart.series.empty()) return "";
  const Axis x = StepAxis(chart), y = ValueAxis(chart);
  std::string out =
      Concat("<figure class='chart'><figcaption><h3>", EscapeHtml(chart.title), "</h3><span class='unit'>",
             EscapeHtml(chart.y_label), "</span>", RenderLegend(chart), "</figcaption>");
  out += Format("<svg viewBox='0 0 %.0f %.0f' role='img' aria-label='", kWidth, kHeight) +
         EscapeHtml(chart.title) + "' data-chart='" + PointerData(chart, x, y) + "'>";
  out += RenderAxes(chart, x, y);
  if (chart.draws_bands)
    for (const Series& series : chart.series) out += RenderBand(series, x, y);
  for (const Series& series : chart.series) out += RenderLine(series, x, y);
  return out + "<g class='pointer'></g></svg></figure>\n";
}

}  // namespace moebius
