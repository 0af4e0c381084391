#include "launch/train/loop.h"

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>

#include "core/backend/measure.h"
#include "core/base/log.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/cost.h"
#include "data/prefetcher.h"
#include "launch/environment.h"
#include "launch/json_lines.h"
#include "launch/metrics.h"
#include "launch/progress.h"
#include "launch/recipe.pb.h"
#include "launch/report/report.h"
#include "launch/signals.h"
#include "launch/tensorboard.h"
#include "launch/train/sampling.h"
#include "launch/train/tokenizer_files.h"
#include "launch/train/validation.h"
#include "optim/checkpoint.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class TrainingLoop {
 public:
  TrainingLoop(const Recipe& recipe, const ModelConfig& config, RunFolder& folder)
      : recipe_(recipe), r_(recipe.proto()), config_(config), folder_(folder) {}

  absl::Status Run();

 private:
  absl::Status OpenData();
  absl::Status LoadStart();
  absl::Status OpenOutputs();
  absl::Status RunSteps();
  absl::Status AfterStep(const StepMetrics& m);
  absl::Status Validate(MetricsRow* row);
  absl::Status Sample();
  absl::Status Save();
  absl::Status Finish();
  MetricsRow RowOf(const StepMetrics& m) const;
  bool IsLast() const { return state().step >= r_.steps(); }
  static bool Due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }
  TrainerState& state() { return training_.trainer->state(); }
  const TrainerState& state() const { return training_.trainer->state(); }

  const Recipe& recipe_;
  const proto::Recipe& r_;
  const ModelConfig& config_;
  RunFolder& folder_;
  StopSignals signals_;
  Clock::time_point started_ = Clock::now();
  double elapsed_before_ = 0;  // of earlier processes of this run
  Training training_;
  std::unique_ptr<Loader> loader_;
  std::optional<Validation> validation_;
  std::unique_ptr<PromptSampler> sampler_;
  TokenizerFiles tokenizer_;
  std::string instruction_set_;
  std::optional<JsonLinesWriter> metrics_;
  std::optional<JsonLinesWriter> loads_;
  std::optional<TensorboardWriter> tensorboard_;
  std::unique_ptr<Progress> progress_;
  double flops_per_token_ = 0;
  double peak_flops_ = 0;
  int64_t saved_step_ = -1;
};

absl::Status TrainingLoop::OpenData() {
  ASSIGN_OR_RETURN(const LoaderOptions options, LoaderOptionsOf(r_, config_));
  ASSIGN_OR_RETURN(loader_, Loader::Open(options));
  if (!r_.data().validation().empty()) {
    ASSIGN_OR_RETURN(validation_, Validation::Open(r_.data().validation(), r_.batch().sequence_length(),
                                                   config_.vocab_size, r_.validate().max_tokens()));
  }
  ASSIGN_OR_RETURN(tokenizer_, FindTokenizer(*loader_, r_.init().from()));
  return absl::OkStatus();
}

absl::Status TrainingLoop::LoadStart() {
  ASSIGN_OR_RETURN(training_, BuildTraining(r_, config_));
  instruction_set_ = training_.backend->InstructionSet();
  ASSIGN_OR_RETURN(std::optional<std::string> start, folder_.LatestCheckpoint());
  const bool resumed = start.has_value();
  if (!resumed && r_.fork().has_from()) {
    ASSIGN_OR_RETURN(const RunFolder parent, RunFolder::OpenForReading(r_.fork().from()));
    if (r_.fork().has_step()) {
      start = parent.checkpoint_path(r_.fork().step());
    } else {
      ASSIGN_OR_RETURN(start, parent.LatestCheckpoint());
    }
    if (!start || !FolderExists(*start)) {
      return MissingError(Concat("fork.from: ", r_.fork().from(), " has no checkpoint",
                                 r_.fork().has_step() ? Concat(" of step ", r_.fork().step()) : std::string(),
                                 "; a fork starts from one; name a step that moebius inspect lists"));
    }
  }
  if (!start) {
    RETURN_IF_ERROR(InitializeWeights(r_, training_));
    return folder_.CutBackTo(0);
  }
  std::string warning;
  RETURN_IF_ERROR(LoadCheckpoint(*start, *training_.trainer, *training_.backend, *training_.stream,
                                 instruction_set_, &warning));
  if (!warning.empty()) LogLine("warning: " + warning);
  elapsed_before_ = resumed ? state().elapsed_s : 0;
  saved_step_ = resumed ? state().step : -1;
  return folder_.CutBackTo(state().step);
}

absl::Status TrainingLoop::OpenOutputs() {
  const ModelCost cost = CostOf(config_, r_.batch().sequence_length());
  const bool mtp = r_.mtp().loss_weight() > 0;
  flops_per_token_ = cost.train_flops + (mtp ? cost.train_flops_mtp : 0);
  ASSIGN_OR_RETURN(const DType act, ComputeOf(r_, *training_.backend));
  peak_flops_ = MeasureProductPeak(*training_.backend, act);
  RETURN_IF_ERROR(folder_.WriteRecipe(recipe_.ToText()));
  RETURN_IF_ERROR(folder_.WriteEnvironment(EnvironmentJson(
      ReadEnvironment(),
      {{"backend", training_.backend->Name()},
       {"compute", Concat(act)},
       {"perf/mfu_basis",
        Concat(static_cast<int64_t>(peak_flops_ / 1e9), " GFLOP/s: ", act,
               " product of 1024 cubed, measured at the start of the run; FLOPs of ", flops_per_token_ / 1e9,
               " GFLOP a token (causal attention, MTP included)")}})));
  ASSIGN_OR_RETURN(metrics_, JsonLinesWriter::Open(folder_.metrics_path()));
  ASSIGN_OR_RETURN(loads_, JsonLinesWriter::Open(folder_.expert_load_path()));
  ASSIGN_OR_RETURN(tensorboard_, TensorboardWriter::Open(folder_.tensorboard_path(), state().step + 1));
  progress_ = std::make_unique<Progress>(Progress::Options{.terminal = DetectTerminal(STDOUT_FILENO),
                                                           .fd = STDOUT_FILENO,
                                                           .first_step = state().step,
                                                           .last_step = r_.steps(),
                                                           .log_every_steps = r_.log().every_steps(),
                                                           .log_path = folder_.log_path(0)});
  progress_->Print(Concat(r_.name(), ": ", WithCommas(cost.parameters), " parameters (",
                          WithCommas(cost.active), " active a token), ", training_.backend->Name(), ", ", act,
                          state().step > 0 ? Concat(", going on after step ", state().step) : std::string()));
  return absl::OkStatus();
}

MetricsRow TrainingLoop::RowOf(const StepMetrics& m) const {
  const double tokens = static_cast<double>(SequencesOfStep(r_, m.step) * r_.batch().sequence_length());
  const double tokens_per_s = tokens / m.seconds;
  const TokenFileInfo& file = loader_->file(0).info();
  MetricsRow row{.step = m.step, .values = {}};
  row.Set("time_s", state().elapsed_s);
  row.Set("tokens", static_cast<double>(state().tokens));
  row.Set("train/loss", m.loss);
  if (file.bytes > 0) {
    row.Set("train/bpb", m.loss / M_LN2 * static_cast<double>(loader_->file(0).num_tokens()) /
                             static_cast<double>(file.bytes));
  }
  row.Set("train/grad_norm", m.grad_norm);
  row.Set("train/lr", m.lr);
  if (state().skipped_steps > 0) row.Set("train/skipped_steps", static_cast<double>(state().skipped_steps));
  if (config_.num_nextn_predict_layers > 0 && r_.mtp().loss_weight() > 0) row.Set("mtp/loss", m.mtp_loss);
  if (!m.expert_counts.empty()) {
    row.Set("moe/balance_loss", m.balance_loss);
    if (r_.balance().auxiliary_loss() > 0) row.Set("moe/auxiliary_loss", m.auxiliary_loss);
    if (r_.balance().router_z_loss() > 0) row.Set("moe/router_z_loss", m.z_loss);
    row.Set("moe/max_violation", m.max_violation);
    row.Set("moe/load_entropy", m.load_entropy);
  }
  row.Set("perf/tokens_per_s", tokens_per_s);
  row.Set("perf/mfu", tokens_per_s * flops_per_token_ / peak_flops_);
  row.Set("perf/step_s", m.seconds);
  row.Set("mem/peak_bytes", static_cast<double>(m.peak_bytes));
  return row;
}

absl::Status TrainingLoop::Validate(MetricsRow* row) {
  // What a run ends with is never an estimate.
  const auto extent = IsLast() ? Validation::Extent::kWholeFile : Validation::Extent::kUpToMaxTokens;
  ASSIGN_OR_RETURN(const Validation::Result result, validation_->Run(*training_.trainer, extent));
  row->Set("val/loss", result.loss);
  row->Set("val/bpb", result.bits_per_byte);
  const bool best = result.loss < state().best_val_loss;
  char line[160];
  std::snprintf(line, sizeof line, "step %lld  validation loss %.4f  bits per byte %.4f%s%s",
                static_cast<long long>(state().step), result.loss, result.bits_per_byte,
                result.whole_file ? "" : " (estimate on a part)", best ? "  (best so far)" : "");
  progress_->Print(line);
  if (!best) return absl::OkStatus();
  state().best_val_loss = result.loss;
  state().best_step = state().step;
  if (!r_.checkpoint().keep_best()) return absl::OkStatus();
  RETURN_IF_ERROR(Save());
  return folder_.MarkBest(state().step);
}

absl::Status TrainingLoop::Sample() {
  if (sampler_ == nullptr) {
    ASSIGN_OR_RETURN(sampler_, PromptSampler::Make(r_, training_, tokenizer_));
  }
  ASSIGN_OR_RETURN(const std::vector<SampleRow> rows, sampler_->Run(state().step));
  for (const SampleRow& row : rows)
    progress_->Print(Concat("sample: ", Printable(row.prompt + row.text, 300)));
  return folder_.WriteSamples(state().step, rows);
}

absl::Status TrainingLoop::Save() {
  if (saved_step_ == state().step) return absl::OkStatus();
  state().elapsed_s = elapsed_before_ + SecondsSince(started_);
  RETURN_IF_ERROR(SaveCheckpoint(folder_.checkpoint_path(state().step), *training_.trainer,
                                 *training_.backend, *training_.stream,
                                 {.tokenizer_json = tokenizer_.tokenizer_json,
                                  .tokenizer_config_json = tokenizer_.tokenizer_config_json,
                                  .instruction_set = instruction_set_}));
  saved_step_ = state().step;
  RETURN_IF_ERROR(folder_.MarkLatest(state().step));
  return folder_.PruneCheckpoints(r_.checkpoint().keep());
}

absl::Status TrainingLoop::AfterStep(const StepMetrics& m) {
  state().elapsed_s = elapsed_before_ + SecondsSince(started_);
  MetricsRow row = RowOf(m);
  if (m.skipped) {
    progress_->Print(Concat("step ", m.step, " skipped: loss ", m.loss, ", gradient norm ", m.grad_norm,
                            "; nothing was changed"));
  }
  progress_->Update({.step = m.step,
                     .loss = m.loss,
                     .grad_norm = m.grad_norm,
                     .lr = m.lr,
                     .tokens_per_s = *row.Get("perf/tokens_per_s"),
                     .step_s = m.seconds});
  // A bad step is neither judged nor saved: what is kept is the last good state.
  if (!m.skipped) {
    if (validation_ && (IsLast() || Due(r_.validate().every_steps(), m.step)))
      RETURN_IF_ERROR(Validate(&row));
    if (Due(r_.sample().every_steps(), m.step) || (IsLast() && r_.sample().every_steps() > 0))
      RETURN_IF_ERROR(Sample());
  }
  RETURN_IF_ERROR(metrics_->Append(MetricsLine(row)));
  RETURN_IF_ERROR(tensorboard_->AddScalars(row, static_cast<double>(std::time(nullptr))));
  if (!m.expert_counts.empty() && (IsLast() || Due(r_.log().expert_load_every_steps(), m.step))) {
    ExpertLoadRow load{.step = m.step, .load = {}};
    for (const auto& counts : m.expert_counts) {
      double total = 0;
      for (const int64_t count : counts) total += static_cast<double>(count);
      std::vector<double>& shares = load.load.emplace_back();
      for (const int64_t count : counts) shares.push_back(total > 0 ? static_cast<double>(count) / total : 0);
    }
    RETURN_IF_ERROR(loads_->Append(ExpertLoadLine(load)));
  }
  if (!m.skipped && (Due(r_.checkpoint().every_steps(), m.step) || IsLast())) RETURN_IF_ERROR(Save());
  return absl::OkStatus();
}

absl::Status TrainingLoop::RunSteps() {
  const int64_t first_step = state().step + 1;
  int64_t next_sample = state().sequences;  // touched by the prefetcher's thread alone once it runs
  Prefetcher prefetcher(loader_.get(), r_.data().prefetch_batches(), [&, first_step](int64_t b) {
    const int64_t count = SequencesOfStep(r_, first_step + b);
    const Prefetcher::Range range{.first = next_sample, .count = count};
    next_sample += count;
    return range;
  });
  Batch batch;
  while (!IsLast()) {
    RETURN_IF_ERROR(prefetcher.Next(&batch));
    StepBatch step{.tokens = batch.tokens,
                   .sequences = batch.num_sequences,
                   .length = batch.sequence_length,
                   .document_starts = {}};
    if (r_.data().document_mask()) step.document_starts = batch.document_starts;
    const StepMetrics m = training_.trainer->Step(step);
    RETURN_IF_ERROR(AfterStep(m));
    if (state().bad_in_a_row >= r_.max_bad_steps()) {
      return BadNumbersError(Concat("training stopped at step ", m.step, "; ", state().bad_in_a_row,
                                    " steps in a row gave NaN or infinity (loss ", m.loss, ", gradient norm ",
                                    m.grad_norm, "); lower optimizer.lr or go back with fork { from: \"",
                                    folder_.path(), "\" }; the last good checkpoint is kept"));
    }
    const bool out_of_time = r_.max_minutes() > 0 && SecondsSince(started_) >= 60 * r_.max_minutes();
    if (IsLast() || !(signals_.stop_requested() || out_of_time)) continue;
    RETURN_IF_ERROR(Save());
    return StoppedError(Concat("stopped after step ", m.step, "; ",
                               out_of_time ? Concat("max_minutes ", r_.max_minutes(), " is over")
                                           : Concat("signal ", signals_.signal_number(), " arrived"),
                               "; the state is saved, run the same command again to go on"));
  }
  return absl::OkStatus();
}

absl::Status TrainingLoop::Finish() {
  progress_->Finish();
  RETURN_IF_ERROR(tensorboard_->Flush());
  return WriteReport({folder_.path()}, folder_.report_path());
}

absl::Status TrainingLoop::Run() {
  RETURN_IF_ERROR(OpenData());
  RETURN_IF_ERROR(LoadStart());
  RETURN_IF_ERROR(OpenOutputs());
  if (IsLast()) {
    progress_->Print(
        Concat("nothing to do: step ", state().step, " of ", r_.steps(), " is done; raise steps to go on"));
    progress_->Finish();
    return absl::OkStatus();
  }
  const absl::Status status = RunSteps();
  const absl::Status finished = Finish();
  return status.ok() ? finished : status;
}

}  // namespace

absl::Status RunTraining(const Recipe& recipe, const ModelConfig& config, RunFolder& folder) {
  return TrainingLoop(recipe, config, folder).Run();
}

}  // namespace moebius
