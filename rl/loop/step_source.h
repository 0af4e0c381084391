// Where a run's steps come from when they are not pre-training: each kind makes its batches, calls the
// trainer and says what to log. The loop around it (metrics, checkpoints, stopping) is launch/train's.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "optim/trainer.h"

namespace moebius {

using NamedValues = std::vector<std::pair<std::string, double>>;

// An answer as people read it.
struct ShownSample {
  std::string prompt;
  std::string text;
  NamedValues values;  // "reward", its parts, "advantage"
  std::string gold;
  std::string verdict;
};

struct StepReport {
  StepMetrics metrics;
  NamedValues values;  // further keys of metrics.jsonl
  std::vector<ShownSample> samples;
  std::vector<std::string> notes;  // lines for the person who watches
  absl::Status stop;               // an error: the step counts, and going on is pointless
};

class StepSource {
 public:
  virtual ~StepSource() = default;
  // Collective, as all of it. One step of the trainer, at its state's step and data position.
  virtual absl::StatusOr<StepReport> Step() = 0;
  // Held-out problems under the present weights: keys "eval/..."; empty where there are none.
  virtual absl::StatusOr<StepReport> Evaluate() = 0;
  // Weights have been loaded, or have been those of step 0 for the first time: what depends on them is made.
  // `reference`: the checkpoint that reference policies start from, "" for none.
  virtual absl::Status Start(const std::string& reference) = 0;
};

}  // namespace moebius
