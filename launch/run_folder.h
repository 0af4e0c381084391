// The folder of a run, runs/NAME/ (contract: "The run folder"): its lock, its paths and what a resumed run
// has to cut back. Checkpoints themselves are written by optim/; which of them stay is decided here.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file.h"
#include "launch/metrics.h"

namespace moebius {

// The steps of all complete checkpoints in the run folder `path`, rising.
absl::StatusOr<std::vector<int64_t>> CheckpointStepsIn(const std::string& path);

class RunFolder {
 public:
  // Makes the folder with its subfolders and locks it until destruction (the kernel drops the lock of a
  // killed process). 73 when it cannot be written or another process holds it.
  static absl::StatusOr<RunFolder> Open(const std::string& path);
  // For reading (report, inspect): no lock, nothing is made. 66 when it is no run folder.
  static absl::StatusOr<RunFolder> OpenForReading(const std::string& path);
  RunFolder(RunFolder&&) noexcept = default;

  // After a failed start: removes the folder if Open made it and it holds neither a checkpoint nor metrics
  // yet, with the parents that Open made if they are empty. What cannot be removed stays: the start's own
  // error counts.
  void DiscardIfUnused() const;

  const std::string& path() const { return path_; }
  std::string File(std::string_view name) const { return JoinPath(path_, name); }
  std::string metrics_path() const { return File("metrics.jsonl"); }
  std::string expert_load_path() const { return File("expert_load.jsonl"); }
  std::string samples_path() const { return File("samples"); }
  std::string tensorboard_path() const { return File("tensorboard"); }
  std::string environment_path() const { return File("environment.json"); }
  std::string recipe_path() const { return File("recipe.resolved.textproto"); }
  std::string report_path() const { return File("report.html"); }
  std::string log_path(int rank) const;
  std::string checkpoint_path(int64_t step) const;  // checkpoints/step-00001000

  // Atomic; 73 on failure.
  absl::Status WriteRecipe(std::string_view text) const;
  absl::Status WriteEnvironment(std::string_view json) const;
  absl::Status WriteSamples(int64_t step, const std::vector<SampleRow>& rows) const;

  // Where `checkpoints/latest` points; without that link the last checkpoint. nullopt when there is none yet;
  // 65 when it points to nothing.
  absl::StatusOr<std::optional<std::string>> LatestCheckpoint() const;
  absl::StatusOr<std::vector<int64_t>> CheckpointSteps() const { return CheckpointStepsIn(path_); }
  // Moves `latest` (or `best`) to the checkpoint of `step`, which must exist.
  absl::Status MarkLatest(int64_t step) const;
  absl::Status MarkBest(int64_t step) const;
  // The same where the checkpoint of `step` is there: after a kill, or when a run went back to an earlier
  // step.
  absl::Status RestoreBest(int64_t step) const;
  // The checkpoint whose weights a reference policy has; "" when none was marked.
  absl::Status MarkReference(int64_t step) const;
  std::string ReferenceCheckpoint() const;
  // Removes the oldest checkpoints beyond the newest `keep`; those that `latest`, `best` and `reference`
  // point to always stay, that of step `proven` too, and those whose policy one that stays compares with.
  // Those beyond `latest` are of a course that was given up: they get other names ("given-up-step-...").
  using ReferenceOf = std::function<int64_t(const std::string& checkpoint)>;  // a step; -1: none
  absl::Status PruneCheckpoints(int64_t keep, int64_t proven, const ReferenceOf& reference_of) const;

  // Forgets metrics, expert loads and samples of steps above `step`, and that a checkpoint beyond it was the
  // best: before the run goes on from that checkpoint.
  absl::Status CutBackTo(int64_t step) const;

 private:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}
  absl::Status Mark(const std::string& link, int64_t step) const;

  std::string path_;
  std::string made_from_;          // the highest folder of path_ that Open made; "" if path_ was there before
  std::vector<std::string> made_;  // in path_, by Open
  FileDescriptor lock_;
};

// "step-00001000" -> 1000; nullopt for other names.
std::optional<int64_t> StepOfName(std::string_view name);
std::string StepName(int64_t step);

// Of an error of `checkpoint`, which is damaged or not there: the same with the command by which its run goes
// on from the one before, if there is one; or by which a fork of that run begins with it.
absl::Status WithWayBack(const absl::Status& status, const std::string& checkpoint, bool fork = false);

// The checkpoint of the run folder `from` that a fork begins with: that of `step`, or the latest. 66 when it
// is not there.
absl::StatusOr<std::string> CheckpointToFork(const std::string& from, std::optional<int64_t> step);

// Whether `path` looks like a folder that moebius train wrote.
bool IsRunFolder(const std::string& path);
// The run folders of a pipeline's stages in `path` (01-sft, 02-grpo) in their order. None where `path` is a
// run folder itself, or nothing of ours.
std::vector<std::string> StageFoldersIn(const std::string& path);
// The folder with the model that `path` names: a run folder stands for its latest checkpoint, a pipeline's
// folder for that of its last stage that has one, anything else for itself.
std::string ModelFolderOf(const std::string& path);

}  // namespace moebius
