#include "parallel/pipeline/stage_split.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// best[s][n]: the smallest `join` of the first s stages over the first n layers, by `join(best so far,
// cost)`. Returns where the last stage of each (s, n) begins.
struct Table {
  std::vector<std::vector<double>> best;
  std::vector<std::vector<int>> begin;
};

// cost(stage, begin, end) of one stage.
Table Solve(int layers, int stages, const auto& cost, const auto& join) {
  Table table = {.best = std::vector(stages + 1, std::vector(layers + 1, kInfinity)),
                 .begin = std::vector(stages + 1, std::vector(layers + 1, 0))};
  table.best[0][0] = 0;
  for (int s = 1; s <= stages; ++s) {
    for (int end = s; end <= layers - (stages - s); ++end) {
      for (int begin = s - 1; begin < end; ++begin) {
        if (table.best[s - 1][begin] == kInfinity) continue;
        const double value = join(table.best[s - 1][begin], cost(s - 1, begin, end));
        if (value >= table.best[s][end]) continue;
        table.best[s][end] = value;
        table.begin[s][end] = begin;
      }
    }
  }
  return table;
}

absl::Status CheckCosts(const SplitCosts& costs, int stages) {
  const int64_t layers = static_cast<int64_t>(costs.layers.size());
  if (layers == 0) return UsageError("there are no layers to split");
  if (stages < 1 || stages > layers) {
    return UsageError(Concat(layers, " layers cannot be split into ", stages,
                             " stages of at least one layer; choose 1 to ", layers, " stages"));
  }
  std::vector<double> values = costs.layers;
  values.insert(values.end(), {costs.embedding, costs.head});
  for (double value : values) {
    if (!std::isfinite(value) || value < 0)
      return UsageError(Concat("a layer's cost is ", value, "; give finite ones >= 0"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<LayerRange>> SplitLayers(const SplitCosts& costs, int stages) {
  RETURN_IF_ERROR(CheckCosts(costs, stages));
  const int layers = static_cast<int>(costs.layers.size());
  std::vector<double> prefix(layers + 1, 0);
  for (int layer = 0; layer < layers; ++layer) prefix[layer + 1] = prefix[layer] + costs.layers[layer];
  const auto cost = [&](int stage, int begin, int end) {
    return prefix[end] - prefix[begin] + (stage == 0 ? costs.embedding : 0) +
           (stage == stages - 1 ? costs.head : 0);
  };
  const double bound =
      Solve(layers, stages, cost, [](double a, double b) { return std::max(a, b); }).best[stages][layers];
  const double limit = bound * (1 + 1e-12);  // the same sums, but let no rounding exclude the optimum
  const Table table = Solve(layers, stages, cost, [limit](double sum, double stage_cost) {
    return stage_cost > limit ? kInfinity : sum + stage_cost * stage_cost;
  });
  CHECK(table.best[stages][layers] < kInfinity) << layers << " layers, " << stages << " stages";
  std::vector<LayerRange> ranges(stages);
  int end = layers;
  for (int s = stages; s > 0; --s) {
    const int begin = table.begin[s][end];
    ranges[s - 1] = {begin, end, cost(s - 1, begin, end)};
    end = begin;
  }
  return ranges;
}

}  // namespace moebius
