#include "launch/train/loop.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>

#include "core/base/log.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "data/prefetcher.h"
#include "launch/recipe.pb.h"
#include "launch/train/outputs.h"
#include "launch/train/run_saves.h"
#include "launch/train/sampling.h"
#include "launch/train/settings.h"
#include "launch/train/sources.h"
#include "launch/train/step_timeline.h"
#include "launch/train/texts.h"
#include "rl/loop/policy_watch.h"
#include "rl/sandbox/sandbox.h"

namespace moebius {
namespace {

// All ranks run this; what only rank 0 has (folder, outputs) is null on the others, and what only rank 0 can
// know (where to start, when to stop) it tells them.
class TrainingLoop {
 public:
  TrainingLoop(const Recipe& recipe, const ModelConfig& config, RunFolder* folder, Training& training,
               const StopSignals& signals, const LoopOptions& options)
      : options_(options),
        recipe_(recipe),
        r_(recipe.proto()),
        config_(config),
        folder_(folder),
        training_(training),
        trainer_(*training.trainer),
        mesh_(training.trainer->mesh()),
        signals_(signals),
        saves_(recipe.proto(), folder, training) {}

  absl::Status Run();

 private:
  absl::Status OpenData();
  absl::Status OpenTexts();
  absl::Status OpenSampler();
  absl::Status StartSource();
  absl::Status RecallMetrics();
  // What makes the next step.
  using StepMaker = std::function<absl::StatusOr<StepReport>()>;
  absl::Status RunOnTexts();
  absl::Status RunOnSource();
  absl::Status RunSteps(const StepMaker& next);
  absl::StatusOr<StepReport> Pictured(const StepMaker& next);
  absl::Status AfterStep(const StepReport& report);
  absl::Status Evaluate(MetricsRow* row, std::vector<ShownSample>* samples);
  absl::Status WriteSamples(std::vector<SampleRow> prompted, const std::vector<ShownSample>& samples);
  absl::Status Validate(MetricsRow* row);
  absl::Status CatchUpValidation();
  absl::Status Sample(std::vector<SampleRow>* rows);
  absl::Status Save();
  absl::StatusOr<bool> ShouldStop();
  absl::Status Stopped() const;
  std::string WayBack() const;
  bool RunsUnsafePrograms() const { return options_.sandbox != nullptr && !options_.sandbox->isolated(); }
  bool leads() const { return folder_ != nullptr; }
  bool IsLast() const { return state().step >= r_.steps(); }
  static bool Due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }
  // Whether the reference policy becomes the present one once this step is saved. A bad step is not kept, and
  // a stop that saves it all the same moves nothing.
  bool MovesReference() const {
    return source_ != nullptr && source_->needs_reference() && state().bad_in_a_row == 0 &&
           Due(r_.rl().reference_refresh_steps(), state().step);
  }
  bool TooManyBadSteps() const { return state().bad_in_a_row >= r_.max_bad_steps(); }
  // Not before something was done: else a validation longer than max_minutes would begin again for ever.
  bool OutOfTime() const {
    return came_on_ && r_.max_minutes() > 0 && saves_.process_seconds() >= 60 * r_.max_minutes();
  }
  TrainerState& state() { return trainer_.state(); }
  const TrainerState& state() const { return trainer_.state(); }
  void Print(const std::string& line) {
    if (outputs_ != nullptr) outputs_->Print(line);
  }

  const LoopOptions options_;
  const Recipe& recipe_;
  const proto::Recipe& r_;
  const ModelConfig& config_;
  RunFolder* folder_;
  Training& training_;
  Trainer& trainer_;
  Mesh& mesh_;
  const StopSignals& signals_;
  RunSaves saves_;
  TrainingTexts texts_;                     // of PRETRAIN
  std::unique_ptr<TaskSource> source_;      // of everything else
  std::unique_ptr<PromptSampler> sampler_;  // where sample.every_steps asks for one
  TokenizerFiles tokenizer_;
  std::unique_ptr<RunOutputs> outputs_;
  PolicyWatch watch_;     // of what `outputs_` writes
  bool came_on_ = false;  // this process has done a step, or the validation that another one left
};

absl::Status TrainingLoop::OpenData() {
  if (r_.task() == proto::PRETRAIN) return mesh_.Agree(OpenTexts());
  ASSIGN_OR_RETURN(source_,
                   TaskSource::Make(r_, training_, leads() ? folder_->path() : "", options_.sandbox));
  tokenizer_ = source_->files();
  return mesh_.Agree(OpenSampler());
}

absl::Status TrainingLoop::OpenSampler() {
  if (r_.sample().every_steps() == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(sampler_, PromptSampler::Make(r_, training_, tokenizer_));
  return absl::OkStatus();
}

absl::Status TrainingLoop::OpenTexts() {
  ASSIGN_OR_RETURN(texts_, moebius::OpenTexts(r_, config_));
  tokenizer_ = texts_.tokenizer;
  return OpenSampler();
}

absl::Status TrainingLoop::Validate(MetricsRow* row) {
  ASSIGN_OR_RETURN(const std::optional<std::string> line,
                   texts_.judge->Run(
                       trainer_, IsLast(), [this] { return ShouldStop(); }, row));
  if (line) Print(*line);
  return absl::OkStatus();
}

// Of the step that a stopped run goes on from. Its row has been written: what is missing gets one of its own.
absl::Status TrainingLoop::CatchUpValidation() {
  if (!state().unvalidated || !texts_.judge) return absl::OkStatus();
  MetricsRow row{.step = state().step, .values = {}};
  RETURN_IF_ERROR(Validate(&row));
  if (state().unvalidated) return Stopped();
  came_on_ = true;
  absl::Status status;
  if (leads()) {
    const absl::StatusOr<std::vector<MetricsRow>> rows = ReadMetrics(folder_->metrics_path());
    status = rows.status();
    // Killed between the row and the checkpoint, a run comes here again.
    const bool written = rows.ok() && std::any_of(rows->begin(), rows->end(), [&](const MetricsRow& r) {
                           return r.step == row.step && r.Get(row.values.front().first).has_value();
                         });
    if (rows.ok() && !written) status = outputs_->Write({}, row, false);
    if (status.ok()) status = outputs_->Sync();
  }
  RETURN_IF_ERROR(mesh_.Agree(status));
  return saves_.SaveAgain();
}

absl::Status TrainingLoop::Sample(std::vector<SampleRow>* rows) {
  ASSIGN_OR_RETURN(*rows, sampler_->Run(state().step));  // on the others only until rank 0 has the model
  const absl::Status mine = leads() ? outputs_->ShowSamples(*rows) : absl::OkStatus();
  options_.wait_for_rank_0(!leads());
  const absl::Status shown = mesh_.Agree(mine);
  options_.wait_for_rank_0(false);
  return shown;
}

absl::Status TrainingLoop::Evaluate(MetricsRow* row, std::vector<ShownSample>* samples) {
  ASSIGN_OR_RETURN(StepReport report, source_->source().Evaluate());
  for (const auto& [name, value] : report.values) row->Set(name, value);
  for (const std::string& note : report.notes) Print(Concat("step ", state().step, "  ", note));
  RETURN_IF_ERROR(mesh_.Agree(leads() ? outputs_->ShowSamples(SampleRowsOf(report.samples, state().step))
                                      : absl::OkStatus()));
  // Of a step that has none of its own.
  if (samples->empty()) *samples = std::move(report.samples);
  return absl::OkStatus();
}

// Of one step: answers to prompts of the recipe, then what the source has shown.
absl::Status TrainingLoop::WriteSamples(std::vector<SampleRow> prompted,
                                        const std::vector<ShownSample>& samples) {
  if (!leads()) return absl::OkStatus();
  const std::vector<SampleRow> shown = SampleRowsOf(samples, state().step);
  prompted.insert(prompted.end(), shown.begin(), shown.end());
  return prompted.empty() ? absl::OkStatus() : folder_->WriteSamples(state().step, prompted);
}

absl::Status TrainingLoop::AfterStep(const StepReport& report) {
  const StepMetrics& m = report.metrics;
  saves_.Observe(m);
  MetricsRow row{.step = m.step, .values = {}};
  if (outputs_ != nullptr) {
    row = outputs_->RowOf(m, state(), texts_.bits_per_nat);
    for (const auto& [name, value] : report.values) row.Set(name, value);
    if (RunsUnsafePrograms()) row.Set("rl/unsafe_sandbox", 1);
    outputs_->Update(m, row);
    for (const std::string& warning : watch_.Observe(m.step, row.values))
      Print(Concat("step ", m.step, "  ", warning));
  }
  for (const std::string& note : report.notes) Print(Concat("step ", m.step, "  ", note));
  std::vector<ShownSample> samples = report.samples;
  std::vector<SampleRow> prompted;
  // A bad step is neither judged nor saved: what is kept is the last good state. Where the run ends with it,
  // it is that state which is judged and kept.
  const bool kept = !m.skipped || (IsLast() && !TooManyBadSteps());
  if (kept) {
    if (texts_.judge && (IsLast() || Due(r_.validate().every_steps(), m.step)))
      RETURN_IF_ERROR(Validate(&row));
    if (source_ != nullptr && (IsLast() || Due(r_.evaluate().every_steps(), m.step)))
      RETURN_IF_ERROR(Evaluate(&row, &samples));
    if (Due(r_.sample().every_steps(), m.step) || (IsLast() && r_.sample().every_steps() > 0)) {
      RETURN_IF_ERROR(Sample(&prompted));
    }
  }
  RETURN_IF_ERROR(mesh_.Agree(WriteSamples(std::move(prompted), samples)));
  // Before a checkpoint: a run that goes on from there has the rows up to it.
  if (outputs_ != nullptr) RETURN_IF_ERROR(outputs_->Write(m, row, IsLast()));
  if (!kept) return absl::OkStatus();
  if (MovesReference()) state().reference_step = m.step;
  if (saves_.IsBest() || MovesReference() || IsLast() || Due(r_.checkpoint().every_steps(), m.step))
    RETURN_IF_ERROR(Save());
  return MovesReference() ? StartSource() : absl::OkStatus();
}

absl::Status TrainingLoop::Save() {
  RETURN_IF_ERROR(mesh_.Agree(leads() ? outputs_->Sync() : absl::OkStatus()));
  return saves_.Save();
}

absl::Status TrainingLoop::StartSource() {
  std::string reference;
  if (source_->needs_reference()) {
    ASSIGN_OR_RETURN(reference, saves_.Reference());
  }
  return source_->source().Start(reference);
}

// Out of bad numbers.
std::string TrainingLoop::WayBack() const {
  const bool has_checkpoint = leads() && folder_->LatestCheckpoint().value_or(std::nullopt).has_value();
  return has_checkpoint
             ? Concat(
                   "the last good checkpoint is kept; go on from it in another folder, with --out OTHER "
                   "--set fork.from=",
                   folder_->path(),
                   state().proven_step < 0 ? "" : Concat(" --set fork.step=", state().proven_step),
                   " and a lower optimizer.lr")
             : "lower optimizer.lr";
}

// A signal may reach any rank; rank 0's clock counts.
absl::StatusOr<bool> TrainingLoop::ShouldStop() {
  double stop = signals_.stop_requested() || (mesh_.all().rank() == 0 && OutOfTime());
  RETURN_IF_ERROR(mesh_.Max({&stop}));
  return stop != 0;
}

absl::Status TrainingLoop::Stopped() const {
  const int signal = signals_.signal_number();
  return StoppedError(Concat("stopped after step ", state().step, "; ",
                             signal != 0   ? Concat("signal ", signal, " arrived")
                             : OutOfTime() ? Concat("max_minutes ", r_.max_minutes(), " is over")
                                           : std::string("another rank was told to"),
                             "; the state is saved, run the same command again to go on"));
}

absl::Status TrainingLoop::RunOnTexts() {
  for (const std::string& line : DescribeTexts(*texts_.loader, SequencesOfRun(r_))) Print(line);
  RETURN_IF_ERROR(CatchUpValidation());
  const int64_t first_step = state().step + 1;
  int64_t next_sample = state().sequences;  // touched by the prefetcher's thread alone once it runs
  Prefetcher prefetcher(texts_.loader.get(), r_.data().prefetch_batches(), [&, first_step](int64_t b) {
    const int64_t count = SequencesOfStep(r_, first_step + b);
    const Prefetcher::Range range{.first = next_sample, .count = count};
    next_sample += count;
    return range;
  });
  Batch batch;
  return RunSteps([&]() -> absl::StatusOr<StepReport> {
    RETURN_IF_ERROR(prefetcher.Next(&batch));
    StepReport report;
    ASSIGN_OR_RETURN(report.metrics, trainer_.Step(StepBatchOf(batch, r_)));
    return report;
  });
}

absl::StatusOr<StepReport> TrainingLoop::Pictured(const StepMaker& next) {
  StepTimeline timeline(trainer_);
  RETURN_IF_ERROR(timeline.Begin());
  ASSIGN_OR_RETURN(StepReport report, next());
  const std::string& path = options_.timeline;
  ASSIGN_OR_RETURN(const std::string page, timeline.End(path.ends_with(".json")));
  if (!leads()) return report;
  // A picture is not worth a step.
  const absl::Status written = WriteFileAtomically(path, page).status();
  Print(written.ok() ? Concat("timeline of step ", report.metrics.step, ": ", path)
                     : Concat("warning: no timeline: ", written.message()));
  return report;
}

absl::Status TrainingLoop::RunSteps(const StepMaker& next) {
  // The third step is the first without anything new.
  const int64_t pictured = options_.timeline.empty() ? -1 : std::min<int64_t>(state().step + 3, r_.steps());
  while (!IsLast()) {
    trainer_.ForgetTraffic();
    ASSIGN_OR_RETURN(const StepReport report, state().step + 1 == pictured ? Pictured(next) : next());
    const StepMetrics& m = report.metrics;
    came_on_ = true;
    RETURN_IF_ERROR(AfterStep(report));
    if (TooManyBadSteps()) {
      return mesh_.Agree(
          BadNumbersError(Concat("training stopped at step ", m.step, "; ", state().bad_in_a_row,
                                 " steps in a row gave NaN or infinity (loss ", m.loss, ", gradient norm ",
                                 m.grad_norm, "); ", WayBack())));
    }
    if (!report.stop.ok()) {
      RETURN_IF_ERROR(Save());
      return mesh_.Agree(report.stop);
    }
    if (IsLast() && !state().unvalidated) break;
    ASSIGN_OR_RETURN(const bool stop, ShouldStop());
    if (!stop) continue;
    RETURN_IF_ERROR(Save());
    return Stopped();
  }
  return absl::OkStatus();
}

absl::Status TrainingLoop::RunOnSource() {
  if (!source_->note().empty()) Print(source_->note());
  RETURN_IF_ERROR(StartSource());
  if (state().step == 0 && r_.evaluate().at_start()) {
    MetricsRow row;
    std::vector<ShownSample> samples;
    RETURN_IF_ERROR(Evaluate(&row, &samples));
    RETURN_IF_ERROR(mesh_.Agree(WriteSamples({}, samples)));
    if (outputs_ != nullptr && !row.values.empty()) RETURN_IF_ERROR(outputs_->Write({}, row, false));
  }
  return RunSteps([this] { return source_->source().Step(); });
}

// Detectors go on from the steps that are kept; what they had to say was said.
absl::Status TrainingLoop::RecallMetrics() {
  if (source_ == nullptr || state().step == 0 || !FileExists(folder_->metrics_path()))
    return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<MetricsRow> rows, ReadMetrics(folder_->metrics_path()));
  for (const MetricsRow& row : rows) watch_.Observe(row.step, row.values);
  return absl::OkStatus();
}

absl::Status TrainingLoop::Run() {
  RETURN_IF_ERROR(OpenData());
  RETURN_IF_ERROR(saves_.Load(tokenizer_, texts_.loader.get()));
  if (texts_.judge) {
    texts_.judge->Begin(state());
  } else {
    state().unvalidated = false;
  }
  RETURN_IF_ERROR(saves_.CutBack());
  if (IsLast() && !state().unvalidated) {
    if (!saves_.saved() && state().step > 0) {
      return UsageError(Concat("fork.from: the fork begins at step ", state().step, " of ", r_.steps(),
                               ", so nothing is left to do; raise steps, or set fork.step lower"));
    }
    const std::string done = Concat("step ", state().step, " of ", r_.steps(), " is done");
    if (leads()) {
      std::printf("nothing to do: %s; raise steps to go on%s\n", done.c_str(),
                  options_.timeline.empty() ? "" : "; --timeline: there is no step to draw");
    }
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const double peak, MeasurePeakOfRanks(r_, training_));
  absl::Status opened;
  if (leads()) {
    auto outputs = RunOutputs::Open(recipe_, config_, training_, *folder_, state().step, peak,
                                    FactsOf(r_, config_, RunsUnsafePrograms()));
    opened = outputs.status();
    if (outputs.ok()) outputs_ = std::move(*outputs);
    if (opened.ok()) opened = RecallMetrics();
  }
  RETURN_IF_ERROR(mesh_.Agree(opened));
  absl::Status status = source_ == nullptr ? RunOnTexts() : RunOnSource();
  const absl::Status finished = outputs_ != nullptr ? outputs_->Finish() : absl::OkStatus();
  return status.ok() ? finished : status;
}

}  // namespace

absl::Status RunTraining(const Recipe& recipe, const ModelConfig& config, RunFolder* folder,
                         Training& training, const StopSignals& signals, const LoopOptions& options) {
  RETURN_IF_ERROR(TrainingLoop(recipe, config, folder, training, signals, options).Run());
  return training.trainer->Close();
}

}  // namespace moebius
