#include "launch/report/heat_map.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/base/strings.h"
#include "launch/report/chart.h"

namespace moebius {
namespace {

constexpr int kLevels = 9;
constexpr size_t kMaxColumns = 90;

// times[column][expert] of one layer.
struct LayerLoad {
  std::vector<int64_t> steps;
  std::vector<std::vector<double>> times;
};

// Means over equal groups of rows, at most kMaxColumns of them.
LayerLoad Columns(const std::vector<ExpertLoadRow>& rows, size_t layer) {
  LayerLoad out;
  const size_t experts = rows.back().load[layer].size();
  const size_t count = std::min(rows.size(), kMaxColumns);
  for (size_t c = 0; c < count; ++c) {
    std::vector<double> mean(experts, 0.0);
    const size_t begin = c * rows.size() / count, end = (c + 1) * rows.size() / count;
    size_t used = 0;
    for (size_t i = begin; i < end; ++i) {
      if (layer >= rows[i].load.size() || rows[i].load[layer].size() != experts) continue;
      for (size_t e = 0; e < experts; ++e) mean[e] += rows[i].load[layer][e] * static_cast<double>(experts);
      ++used;
    }
    if (used == 0) continue;
    for (double& m : mean) m /= static_cast<double>(used);
    out.steps.push_back(rows[end - 1].step);
    out.times.push_back(std::move(mean));
  }
  return out;
}

// One path a level: runs of equal cells along the steps become one rectangle.
std::string Cells(const LayerLoad& load) {
  std::string paths[kLevels];
  const size_t columns = load.times.size(), experts = load.times.front().size();
  for (size_t e = 0; e < experts; ++e) {
    for (size_t begin = 0; begin < columns;) {
      const int level = LoadLevel(load.times[begin][e]);
      size_t end = begin + 1;
      while (end < columns && LoadLevel(load.times[end][e]) == level) ++end;
      paths[level] += Concat("M", begin, " ", e, "h", end - begin, "v1h-", end - begin, "z");
      begin = end;
    }
  }
  std::string out;
  for (int level = 0; level < kLevels; ++level) {
    if (!paths[level].empty()) out += Concat("<path class='h", level, "' d='", paths[level], "'/>");
  }
  return out;
}

// Four hexadecimal digits a cell, times the fair share in 128ths, column by column: for the pointer.
std::string CellValues(const LayerLoad& load) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const auto& column : load.times) {
    for (const double times : column) {
      const int value = std::clamp(static_cast<int>(std::lround(times * 128)), 0, 0xffff);
      for (const int shift : {12, 8, 4, 0}) out += kHex[value >> shift & 15];
    }
  }
  return out;
}

std::string StepsText(const LayerLoad& load) {
  std::string out;
  for (const int64_t step : load.steps) out += Concat(out.empty() ? "" : " ", step);
  return out;
}

// (max - mean) / mean of the last column.
double Violation(const LayerLoad& load) {
  return *std::max_element(load.times.back().begin(), load.times.back().end()) - 1.0;
}

std::string RenderLayer(const std::vector<ExpertLoadRow>& rows, size_t layer, const std::string& name) {
  const LayerLoad load = Columns(rows, layer);
  if (load.times.empty()) return "";
  const size_t columns = load.times.size(), experts = load.times.front().size();
  const int height = std::clamp(static_cast<int>(experts) * 9, 60, 220);
  char worst[40];
  std::snprintf(worst, sizeof worst, "%+.0f %%", 100 * Violation(load));
  return Concat(
      "<figure class='heat'><figcaption>", name, " <span class='unit'>fullest expert ", worst,
      "</span></figcaption><div class='heatrow'><div class='experts'><span>0</span><span>expert</span><span>",
      experts - 1, "</span></div><svg viewBox='0 0 ", columns, " ", experts,
      "' preserveAspectRatio='none' height='", height,
      "' shape-rendering='crispEdges' role='img' aria-label='expert load, ", name, "' data-heat='",
      CellValues(load), "' data-steps='", StepsText(load), "' data-experts='", experts, "'>", Cells(load),
      "</svg></div><div class='steps'><span>",
      FormatNumber(static_cast<double>(load.steps.front()), NumberStyle::kCount),
      "</span><span>step</span><span>",
      FormatNumber(static_cast<double>(load.steps.back()), NumberStyle::kCount), "</span></div></figure>\n");
}

}  // namespace

int LoadLevel(double times) {
  if (!(times > 0)) return 0;
  // Half a power of two a level.
  return std::clamp(static_cast<int>(std::lround(4 + 2 * std::log2(times))), 0, kLevels - 1);
}

std::string RenderLoadScale() {
  std::string scale;
  static constexpr const char* kNames[] = {"¼×", "", "½×", "", "fair", "", "2×", "", "4×"};
  for (int level = 0; level < kLevels; ++level) {
    scale += Concat("<span><i class='h", level, "'></i>", kNames[level], "</span>");
  }
  return Concat("<div class='scale'><b>share of tokens</b>", scale, "</div>");
}

std::string RenderExpertLoads(const std::vector<ExpertLoadRow>& rows, const std::vector<std::string>& names,
                              size_t max_layers) {
  if (rows.empty() || rows.back().load.empty()) return "";
  const size_t layers = rows.back().load.size(), shown = std::min(layers, max_layers);
  std::string out;
  if (shown < layers)
    out += Concat("<p class='note'>", shown, " of ", layers, " MoE layers, evenly spaced.</p>");
  out += "<div class='heats'>";
  for (size_t i = 0; i < shown; ++i) {
    const size_t layer = shown == 1 ? 0 : i * (layers - 1) / (shown - 1);
    if (rows.back().load[layer].empty()) continue;
    out += RenderLayer(
        rows, layer, layers <= names.size() ? names[layer] : Concat("MoE layer ", layer + 1, " of ", layers));
  }
  return out + "</div>\n";
}

}  // namespace moebius
