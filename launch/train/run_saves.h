// Where a run goes on from, and what it keeps: its checkpoints and their marks (latest, best, reference).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/loader.h"
#include "launch/recipe.h"
#include "launch/run_folder.h"
#include "launch/train/setup.h"
#include "launch/train/tokenizer_files.h"

namespace moebius {

// On every rank; `folder` is rank 0's, null on the others, who are told what is in it. Calls that return a
// status are collective.
class RunSaves {
 public:
  RunSaves(const proto::Recipe& recipe, RunFolder* folder, Training& training);

  // Weights and state of the latest checkpoint, or of fork.from's, or of step 0. Marks the folder with what
  // the run is about to read (run_marks.h): `texts` (null for none) and init.from. Checkpoints will carry
  // `tokenizer`.
  absl::Status Load(const TokenizerFiles& tokenizer, const Loader* texts);
  // The folder as the state that was loaded has it: nothing of later steps, its best step marked.
  absl::Status CutBack();

  // Whether a checkpoint of this run holds a state that it came through: false before the first, and where a
  // fork begins.
  bool saved() const { return saved_step_ >= 0; }
  bool IsBest() const;
  // The state as it is, unless that step is saved; older checkpoints that nobody needs go.
  absl::Status Save();
  // Where the state is no longer what was saved of its step.
  absl::Status SaveAgain();
  // Of every step: time, and that a good step follows what was saved.
  void Observe(const StepMetrics& step);

  // Checkpoint of the policy that others are compared with: the one that the run began with, or the later one
  // that state().reference_step names.
  absl::StatusOr<std::string> Reference();

  double process_seconds() const;  // of this process

 private:
  absl::StatusOr<std::string> FindStart(bool* resumed) const;
  absl::Status MarkInitOfRun() const;
  bool leads() const { return folder_ != nullptr; }
  TrainerState& state() const { return training_.trainer->state(); }

  const proto::Recipe& r_;
  RunFolder* folder_;
  Training& training_;
  Mesh& mesh_;
  TokenizerFiles tokenizer_;
  const std::string instruction_set_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  double seconds_before_ = 0;  // of earlier processes of this run
  int64_t saved_step_ = -1;
};

}  // namespace moebius
