// One training step of one rank: the pipeline's actions, clipping, AdamW on what the rank owns, the balance
// bias. All ranks of a world call the same methods together. Where batches come from, what is logged and when
// something is saved is decided above (launch/).
#pragma once

#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "core/backend/context.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "parallel/gradient_buckets.h"
#include "parallel/pipeline/engine.h"
#include "parallel/stages.h"

namespace moebius {

struct TrainConfig {
  int64_t steps = 100;               // length of the run: what schedules decay over
  int64_t microbatch_sequences = 0;  // 0: the whole batch at once
  ScheduleConfig schedule;
  AdamWConfig optimizer;
  double clip_norm = 1.0;  // 0: no clipping
  double bias_update_speed = 0.001;
  double sequence_loss = 1e-4;
  double auxiliary_loss = 0;
  double router_z_loss = 0;
  double mtp_loss_weight = 0.3;
  RecomputePolicy recompute;
  Rounding rounding = Rounding::kNone;  // kFp8: of linear layers and experts, in training steps alone
};

// A global batch on the host, the same on all ranks.
struct StepBatch {
  std::span<const int32_t> tokens;  // [sequences, length + 1]
  int64_t sequences = 0;
  int64_t length = 0;
  std::vector<std::vector<int32_t>> document_starts;  // see Microbatch::Load; empty: no document mask
};

// A batch of conversations or of answers to prompts: the global batch on the host, the same on all ranks. MTP
// modules are neither run nor changed by it.
struct GroupBatch {
  std::span<const AnswerGroup> groups;
  int64_t predictions = 0;  // of the batch: train/loss is the mean over these
  // The trained objective: the sum of (scale * weight * cross-entropy - entropy_scale * entropy).
  double scale = 0;
  double temperature = 1;  // of the logits
  bool entropies = false;
  double entropy_scale = 0;
  // See Microbatch; `first` and `count` say which groups these are the predictions of. Called on ranks that
  // hold the head, each for its own groups.
  std::function<void(int64_t first, int64_t count, std::span<const float> losses, std::span<float> weights)>
      weigh = nullptr;
  std::function<void(int64_t first, int64_t count, std::span<const float> losses,
                     std::span<const float> entropies)>
      observe = nullptr;
  // Adds the teacher's scale * weight * divergence to the objective. Called likewise, for every microbatch.
  std::function<HeadTeacher(int64_t first, int64_t count)> teach = nullptr;
};

// Definitions in the contract under "Definitions".
struct StepMetrics {
  int64_t step = 0;
  int64_t tokens = 0;  // that the model ran over
  double loss = 0;
  double grad_norm = 0;
  double lr = 0;
  double mtp_loss = 0;
  double balance_loss = 0;
  double auxiliary_loss = 0;
  double z_loss = 0;
  double entropy = 0;                    // of the predictions of a GroupBatch that wants it, mean
  double divergence = 0, agreement = 0;  // of the predictions of a GroupBatch with a teacher, means
  // Routing replay: (token, layer) pairs whose experts were given, and those for which the router had others.
  int64_t routes_given = 0, routes_changed = 0;
  double max_violation = 0;
  double load_entropy = 0;
  std::vector<std::vector<int64_t>> expert_counts;  // of each MoE layer, MTP modules last
  bool skipped = false;                             // bad numbers in all of its updates: nothing moved
  int64_t skipped_updates = 0;                      // of a step of several; the others moved the model
  double seconds = 0;
  int64_t peak_bytes = 0;  // everything that a trainer holds from the backend: largest of the ranks
  int ranks = 1;
  double bubble = 0;  // idle share of the actions' time on the worst rank
  // Sent by all ranks since the latest step or ForgetTraffic to ranks of their node, themselves excluded,
  int64_t bytes_within = 0;
  int64_t bytes_between = 0;  // and those to other nodes
};

// What must survive a stop, beside weights and moments.
struct TrainerState {
  int64_t step = 0;       // steps done, skipped ones included
  int64_t updates = 0;    // optimizer updates: Adam's bias correction counts these
  int64_t sequences = 0;  // consumed: the next global sample index
  int64_t tokens = 0;
  int64_t skipped_steps = 0;
  int64_t bad_in_a_row = 0;    // skipped steps since the last one that moved the model
  int64_t without_signal = 0;  // steps in a row whose rewards taught nothing (rl/loop/signal_watch)
  double best_val_loss = std::numeric_limits<double>::infinity();
  int64_t best_step = -1;       // -1: no validation yet
  std::string judged_by;        // the text that best_val_loss is of; empty: not known
  int64_t reference_step = -1;  // the checkpoint that a policy is compared with; -1: none
  int64_t proven_step = -1;     // the last checkpoint after which a step moved the model; -1: none
  bool unvalidated = false;     // a request to stop ended this step's validation: it is still to be done
  double elapsed_s = 0;         // wall time of the run in all its processes
};

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

// (max - mean) / mean and entropy / ln(experts) of one layer's counts; 0 and 1 where nothing was counted.
double MaxViolation(const std::vector<int64_t>& counts);
double LoadEntropy(const std::vector<int64_t>& counts);

}  // namespace moebius
