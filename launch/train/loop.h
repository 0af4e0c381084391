// The training loop: batches in, steps, and everything around them that a person or a script sees: metrics,
// progress, validation, samples, checkpoints, stopping.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "launch/recipe.h"
#include "launch/run_folder.h"
#include "launch/signals.h"
#include "launch/train/setup.h"

namespace moebius {

namespace sandbox {
class Sandbox;
}

struct LoopOptions {
  std::string timeline = {};            // where the timeline of one step goes; "" for none
  sandbox::Sandbox* sandbox = nullptr;  // for problems that are programs
  // Called with true before this rank waits for work that rank 0 does alone, and with false after.
  std::function<void(bool)> wait_for_rank_0 = [](bool) {};
};

// Collective. Runs `recipe` in `folder` (rank 0's; null on the others) from its latest checkpoint (or
// fork.from's, or step 0) to recipe.steps. StoppedError (75) after saving on SIGINT, SIGTERM, SIGHUP, SIGUSR1
// or max_minutes; BadNumbersError (76) after max_bad_steps steps in a row with NaN or infinity, the last good
// checkpoint kept.
absl::Status RunTraining(const Recipe& recipe, const ModelConfig& config, RunFolder* folder,
                         Training& training, const StopSignals& signals, const LoopOptions& options);

}  // namespace moebius
