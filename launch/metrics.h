// The numbers of a run: metrics.jsonl (contract: keys), expert_load.jsonl and samples/step-N.jsonl, written
// by the training loop and read by the report.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/json_lines.h"

namespace moebius {

// One step. `values` in the order in which they are written: "time_s", "tokens", "train/loss", ...
struct MetricsRow {
  int64_t step = 0;
  std::vector<std::pair<std::string, double>> values;

  void Set(std::string_view name, double value);
  std::optional<double> Get(std::string_view name) const;
};

// {"step":3,"train/loss":2.5}: shortest digits that read back exactly; NaN and infinities are null.
std::string MetricsLine(const MetricsRow& row);
// null reads as NaN. 65 for anything else that is no number; entries that are no metrics (text) are left out.
absl::StatusOr<std::vector<MetricsRow>> ReadMetrics(const std::string& path);

// Shares of the tokens that each expert got at one step: load[layer][expert], each layer sums to 1.
struct ExpertLoadRow {
  int64_t step = 0;
  std::vector<std::vector<double>> load;
};

std::string ExpertLoadLine(const ExpertLoadRow& row);  // shares with 4 significant digits
absl::StatusOr<std::vector<ExpertLoadRow>> ReadExpertLoad(const std::string& path);

struct SampleRow {
  int64_t step = 0;
  std::string prompt;
  std::string text;  // the continuation alone
  // Of an answer that was judged: "reward" and its parts, "advantage"; what was right; what the judge said.
  std::vector<std::pair<std::string, double>> values = {};
  std::string gold = {};
  std::string verdict = {};
};

std::string SampleLine(const SampleRow& row);
// Every sample of a run's samples/ folder, by step.
absl::StatusOr<std::vector<SampleRow>> ReadSamples(const std::string& folder);

}  // namespace moebius
