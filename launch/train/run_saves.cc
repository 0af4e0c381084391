#include "launch/train/run_saves.h"

#include <optional>
#include <utility>
#include <vector>

#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/recipe.pb.h"
#include "launch/train/lineage.h"
#include "launch/train/run_marks.h"
#include "optim/checkpoint.h"

namespace moebius {

RunSaves::RunSaves(const proto::Recipe& recipe, RunFolder* folder, Training& training)
    : r_(recipe),
      folder_(folder),
      training_(training),
      mesh_(training.trainer->mesh()),
      instruction_set_(training.backend->InstructionSet()) {}

// The checkpoint that rank 0 sees; "" for none.
absl::StatusOr<std::string> RunSaves::FindStart(bool* resumed) const {
  ASSIGN_OR_RETURN(const std::optional<std::string> start, folder_->LatestCheckpoint());
  *resumed = start.has_value();
  if (start || !r_.fork().has_from()) return start.value_or("");
  return CheckpointToFork(r_.fork().from(),
                          r_.fork().has_step() ? std::optional<int64_t>(r_.fork().step()) : std::nullopt);
}

// The weights of init.from, which a run that has begun goes on without.
absl::Status RunSaves::MarkInitOfRun() const {
  const std::string& from = r_.init().from();
  const bool own = from.starts_with(folder_->path() + "/");
  if (from.empty() || r_.init().random() || r_.fork().has_from() || own) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string warning, MarkInit(folder_->path(), from));
  if (!warning.empty()) LogLine("warning: " + warning);
  return absl::OkStatus();
}

absl::Status RunSaves::Load(const TokenizerFiles& tokenizer, const Loader* texts) {
  tokenizer_ = tokenizer;
  std::string start;
  bool resumed = false;
  absl::Status status;
  if (leads()) {
    absl::StatusOr<std::string> found = FindStart(&resumed);
    status = found.status();
    if (found.ok()) status = CheckSameTokenizer(tokenizer_.tokenizer_json, "the run's data", *found);
    if (status.ok() && texts != nullptr) status = MarkTexts(folder_->path(), *texts);
    if (status.ok()) status = MarkInitOfRun();
    if (found.ok() && !found->empty()) start = Concat(resumed ? "r" : "f", *found);
  }
  RETURN_IF_ERROR(mesh_.Agree(status));
  ASSIGN_OR_RETURN(const std::vector<std::string> told, mesh_.GatherText(start));
  if (told[0].empty()) return InitializeWeights(r_, training_);
  resumed = told[0][0] == 'r';
  start = told[0].substr(1);
  std::string warning;
  RETURN_IF_ERROR(
      WithWayBack(LoadCheckpoint(start, *training_.trainer, instruction_set_, &warning), start, !resumed));
  if (!warning.empty()) LogLine("warning: " + warning);
  if (!resumed) BeginFork(r_, state());
  seconds_before_ = state().elapsed_s;
  saved_step_ = resumed ? state().step : -1;
  return absl::OkStatus();
}

absl::Status RunSaves::CutBack() {
  if (!leads()) return mesh_.Agree(absl::OkStatus());
  // What the run said of its first weights it will say again, as a fork does that has kept nothing yet.
  absl::Status cut = folder_->CutBackTo(saved() && state().step > 0 ? state().step : -1);
  // Again where a run was killed between the checkpoint and its mark.
  if (saved() && r_.checkpoint().keep_best()) cut.Update(folder_->RestoreBest(state().best_step));
  return mesh_.Agree(cut);
}

bool RunSaves::IsBest() const { return r_.checkpoint().keep_best() && state().best_step == state().step; }

absl::Status RunSaves::Save() {
  const TrainerState& s = state();
  if (saved_step_ == s.step) return absl::OkStatus();
  state().elapsed_s = seconds_before_ + process_seconds();
  RETURN_IF_ERROR(SaveCheckpoint(leads() ? folder_->checkpoint_path(s.step) : "", *training_.trainer,
                                 {.tokenizer_json = tokenizer_.tokenizer_json,
                                  .tokenizer_config_json = tokenizer_.tokenizer_config_json,
                                  .chat_template_jinja = tokenizer_.chat_template_jinja,
                                  .end_ids = tokenizer_.end_ids,
                                  .instruction_set = instruction_set_}));
  saved_step_ = s.step;
  absl::Status status;
  if (leads()) {
    status = folder_->MarkLatest(s.step);
    if (status.ok() && IsBest()) status = folder_->MarkBest(s.step);
    if (status.ok()) status = folder_->PruneCheckpoints(r_.checkpoint().keep(), s.proven_step, ReferenceOf);
  }
  return mesh_.Agree(status);
}

absl::Status RunSaves::SaveAgain() {
  saved_step_ = -1;
  return Save();
}

void RunSaves::Observe(const StepMetrics& step) {
  if (!step.skipped && saved()) state().proven_step = saved_step_;
  state().elapsed_s = seconds_before_ + process_seconds();
}

absl::StatusOr<std::string> RunSaves::Reference() {
  if (state().step == 0 || !saved()) {  // a fork begins later
    state().reference_step = state().step;
    RETURN_IF_ERROR(Save());
  }
  // Again where a run was killed between the checkpoint and its mark, or went back to an earlier step.
  absl::Status marked;
  if (const int64_t step = state().reference_step; leads() && step >= 0) {
    marked = FolderExists(folder_->checkpoint_path(step))
                 ? folder_->MarkReference(step)
                 : DamagedError(Concat(
                       "the policy of step ", step, ", the reference that step ", state().step,
                       " compares with, is kept no longer; go on from a later checkpoint, or fork from ",
                       "this one in another folder"));
  }
  RETURN_IF_ERROR(mesh_.Agree(marked));
  ASSIGN_OR_RETURN(std::vector<std::string> told,
                   mesh_.GatherText(leads() ? folder_->ReferenceCheckpoint() : ""));
  if (told[0].empty()) {
    return DamagedError(
        "checkpoints/reference of the run folder is gone; it holds the policy that this run compares with; "
        "restore it, or start the run again in another folder");
  }
  // The run's own state has just been read or written whole.
  if (state().reference_step != state().step)
    RETURN_IF_ERROR(VerifyCheckpoint(told[0], CheckpointPart::kModel, mesh_));
  return std::move(told[0]);
}

double RunSaves::process_seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

}  // namespace moebius
