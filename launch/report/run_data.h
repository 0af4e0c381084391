// A run folder as the report needs it: metrics as series, expert loads, samples, recipe and environment.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/metrics.h"
#include "rl/problems/answer_form.h"

namespace moebius {

struct Point {
  double x = 0;
  double y = 0;
};

struct RunData {
  std::string name;
  std::string path;
  std::vector<MetricsRow> metrics;
  std::vector<ExpertLoadRow> loads;
  std::vector<std::string>
      load_layers;  // their names: "Layer 3", "MTP 1"; empty when the recipe has no model
  std::vector<SampleRow> samples;
  std::map<std::string, std::string>
      recipe;  // leaf path -> value as protobuf text; empty when the file is missing
  std::string recipe_text;
  std::vector<std::pair<std::string, std::string>> environment;  // in the order of the file
  std::optional<AnswerForm> answer_form;  // how the run found answers in texts; of every recipe that is valid

  // The finite values of a metric over the steps.
  std::vector<Point> Series(std::string_view metric) const;
  // A recipe value without quotes, "" when there is none.
  std::string RecipeValue(const std::string& path) const;
  // The names of metrics that begin with `prefix`, sorted, without it.
  std::vector<std::string> Names(std::string_view prefix) const;
  // What was evaluated: "sort" for "eval/sort" (share right, greedy), beside which stand "eval/sort_ci" (half
  // of its 95 % interval), "eval/sort_pass1" and "eval/sort_pass8".
  std::vector<std::string> Evaluations() const;
};

// Everything that is there; only the folder and metrics.jsonl have to be (66). 65 for a damaged file.
absl::StatusOr<RunData> ReadRun(const std::string& path);

// Figures for tables; NaN when the series is empty.
double LastValue(const std::vector<Point>& series);
double LowestValue(const std::vector<Point>& series);
double MedianValue(const std::vector<Point>& series);
// Mean of the last `count` values: what "final training loss" means for a noisy series.
double TailMean(const std::vector<Point>& series, size_t count);

}  // namespace moebius
