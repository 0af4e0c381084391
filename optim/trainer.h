// One training step of one rank: the pipeline's actions, clipping, AdamW on what the rank owns, the balance
// bias. All ranks of a world call the same methods together. Where batches come from, what is logged and when
// something is saved is decided above (launch/).
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "core/backend/context.h"
#include "optim/optimizer.h"
#include "optim/step.h"
#include "parallel/gradient_buckets.h"
#include "parallel/pipeline/engine.h"
#include "parallel/stages.h"

namespace moebius {

class Trainer {
 public:
  // Collective. Builds what this rank holds; weights are undefined until InitializeWeights or a checkpoint.
  // `layout` fits the model, the world and the smallest batch (FitLayout). All outlive the trainer.
  // UsageError for an exchange that the nodes do not allow (CheckExchange), kUnavailable for a router that
  // the backend does not compute (CheckRouter).
  static absl::StatusOr<std::unique_ptr<Trainer>> New(World& world, Backend& backend, Stream& stream,
                                                      const ModelConfig& model, const ModelOptions& options,
                                                      const Layout& layout, const TrainConfig& config);
  ~Trainer();

  // An error is the world's failure; bad numbers are StepMetrics::skipped.
  absl::StatusOr<StepMetrics> Step(const StepBatch& batch);
  // One step of several optimizer updates, a batch each, at one learning rate; `consumed` data items
  // (TrainerState::sequences). A bad update is skipped alone. Metrics are means over the updates that were
  // not (over all, where none moved the model), counts the sums of all. At least as many groups in each batch
  // as GroupsAtLeast().
  absl::StatusOr<StepMetrics> Step(std::span<const GroupBatch> updates, int64_t consumed);
  // What was sent since the latest step (by validation, checkpoints) is not the next step's.
  void ForgetTraffic() { traffic_ = mesh_->world().traffic(); }
  // A step that trains nothing and consumes data.
  StepMetrics PassStep(int64_t consumed);
  // Every rank needs a group for each of its microbatches.
  int64_t GroupsAtLeast() const;
  // The part of Step before the update: gradients are reduced and lie in the owned slices.
  absl::StatusOr<StepMetrics> ForwardBackward(const StepBatch& batch);
  absl::StatusOr<StepMetrics> ForwardBackward(const GroupBatch& batch);
  void ClearGradients() { buckets_->Clear(context_); }
  // Sum of cross-entropies in nats over all tokens of sequences of any lengths: starts [n + 1] into ids.
  // attention_starts as in Microbatch::LoadRagged.
  absl::StatusOr<double> Evaluate(std::span<const int32_t> ids, std::span<const int32_t> starts,
                                  std::span<const int32_t> attention_starts = {});

  // Masters and weights of this rank's parameters, replicas alike, from the seed.
  void InitializeWeights(uint64_t seed);
  // The whole of master() on every rank that holds a parameter, before it is written.
  absl::Status GatherMasters();
  // Collective: no more steps afterwards.
  absl::Status Close();

  Mesh& mesh() const { return *mesh_; }
  const Stages& stages() const { return *stages_; }
  // The whole model: only where one stage and one expert rank hold it.
  Model& model() const;
  bool holds_whole_model() const;
  const ModelConfig& model_config() const { return stages_->config(); }
  const Schedule& schedule() const { return schedule_; }  // of the latest step, with communication
  AdamWOptimizer& optimizer() { return *optimizer_; }
  const AdamWOptimizer& optimizer() const { return *optimizer_; }
  const TrainConfig& config() const { return config_; }
  TrainerState& state() { return state_; }
  const TrainerState& state() const { return state_; }
  const Context& context() const { return context_; }
  void set_profile(KernelProfile* profile) { context_.profile = profile; }
  void set_timeline(std::vector<TimelineSpan>* spans) { engine_->set_timeline(spans); }
  std::string At() const { return engine_->At(); }  // for a watchdog, from any thread

 private:
  Trainer(Backend& backend, Stream& stream, const TrainConfig& config);

  // What sums over a batch are divided by.
  struct BatchSize {
    double predictions = 0;
    double sequences = 0;
    double tokens = 0;  // that the model runs over
  };
  using Clock = std::chrono::steady_clock;

  Objective MakeObjective(const BatchSize& size) const;
  absl::Status MakeSchedule(int64_t microbatches);
  // The least number from `wanted` on that the layout's schedule runs.
  int64_t MicrobatchesFrom(int64_t wanted) const;
  absl::StatusOr<StepMetrics> Run(const Objective& objective, const Engine::Loader& load,
                                  const BatchSize& size);
  absl::Status AddUp(const Objective& objective, const BatchSize& size, StepSums& sums, StepMetrics& m);
  bool Update(const StepMetrics& m);
  void CountStep(bool moved);
  absl::Status FinishStep(Clock::time_point start, StepMetrics& m);
  void UpdateBiases(const std::vector<std::vector<int64_t>>& counts);
  int64_t HeldBytes() const;

  Arena scratch_;
  Context context_;
  TrainConfig config_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Stages> stages_;
  std::unique_ptr<GradientBuckets> buckets_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
  Schedule shape_;  // stages and holders
  Schedule schedule_;
  int expected_peak_ = 0;  // live activations of this rank under schedule_
  TrainerState state_;
  TrafficCounters traffic_;  // when the latest step ended, or ForgetTraffic was called
};

}  // namespace moebius
