// What a person or a script sees of a run while it goes: metrics.jsonl, TensorBoard, expert loads, progress.
// Rank 0 has them; the others print nothing.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "core/io/json_lines.h"
#include "launch/metrics.h"
#include "launch/progress.h"
#include "launch/recipe.h"
#include "launch/run_folder.h"
#include "launch/tensorboard.h"
#include "launch/train/setup.h"
#include "rl/loop/step_source.h"

namespace moebius {

// What environment.json says beside the machine, and a line about it.
struct RunFact {
  std::string name, value, line;
};

// What a reader of the results must know, and no metric says.
std::vector<RunFact> FactsOf(const proto::Recipe& recipe, const ModelConfig& config, bool unsafe_programs);

// As they are written, of a step.
std::vector<SampleRow> SampleRowsOf(const std::vector<ShownSample>& samples, int64_t step);

// FLOP/s of large products, of all ranks at once: what perf/mfu is a share of. Ranks that share cores share
// their peak. Collective.
absl::StatusOr<double> MeasurePeakOfRanks(const proto::Recipe& recipe, const Training& training);

class RunOutputs {
 public:
  // `first_step`: done before this process began.
  static absl::StatusOr<std::unique_ptr<RunOutputs>> Open(const Recipe& recipe, const ModelConfig& config,
                                                          const Training& training, RunFolder& folder,
                                                          int64_t first_step, double peak_flops,
                                                          const std::vector<RunFact>& facts);

  // The row of a step; validation adds to it before Write.
  MetricsRow RowOf(const StepMetrics& m, const TrainerState& state, double bits_per_nat) const;
  absl::Status Write(const StepMetrics& m, const MetricsRow& row, bool last);
  // What was written has reached the disk: before a checkpoint does, whose rows a run that goes on has.
  absl::Status Sync();
  void Update(const StepMetrics& m, const MetricsRow& row);
  // A line each of those that say most, and all of them in TensorBoard.
  absl::Status ShowSamples(const std::vector<SampleRow>& rows);
  void Print(const std::string& line) { progress_->Print(line); }
  // Ends the bar, flushes and writes the report.
  absl::Status Finish();

 private:
  RunOutputs(const proto::Recipe& recipe, const ModelConfig& config, RunFolder& folder)
      : r_(recipe), config_(config), folder_(folder) {}

  const proto::Recipe& r_;
  const ModelConfig& config_;
  RunFolder& folder_;
  std::optional<JsonLinesWriter> metrics_;
  std::optional<JsonLinesWriter> loads_;
  std::optional<TensorboardWriter> tensorboard_;
  std::unique_ptr<Progress> progress_;
  std::optional<std::chrono::steady_clock::time_point> last_update_;
  double flops_per_token_ = 0;
  double peak_flops_ = 0;  // of all ranks
};

}  // namespace moebius
