// One training step: microbatches forward and backward, clipping, AdamW, the balance bias. Where batches come
// from, what is logged and when something is saved is decided above (launch/).
#pragma once

#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "core/backend/context.h"
#include "core/model/model.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

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
};

// A global batch on the host.
struct StepBatch {
  std::span<const int32_t> tokens;  // [sequences, length + 1]
  int64_t sequences = 0;
  int64_t length = 0;
  std::vector<std::vector<int32_t>> document_starts;  // see Microbatch::Load; empty: no document mask
};

// Definitions in the contract under "Definitions".
struct StepMetrics {
  int64_t step = 0;
  double loss = 0;
  double grad_norm = 0;
  double lr = 0;
  double mtp_loss = 0;
  double balance_loss = 0;
  double auxiliary_loss = 0;
  double z_loss = 0;
  double max_violation = 0;
  double load_entropy = 0;
  std::vector<std::vector<int64_t>> expert_counts;  // of each MoE layer, MTP modules last
  bool skipped = false;                             // bad numbers: nothing moved
  double seconds = 0;
  int64_t peak_bytes = 0;  // everything that this trainer holds from the backend
};

// What must survive a stop, beside weights and moments.
struct TrainerState {
  int64_t step = 0;       // steps done, skipped ones included
  int64_t updates = 0;    // optimizer updates: Adam's bias correction counts these
  int64_t sequences = 0;  // consumed: the next global sample index
  int64_t tokens = 0;
  int64_t skipped_steps = 0;
  int64_t bad_in_a_row = 0;
  double best_val_loss = std::numeric_limits<double>::infinity();
  int64_t best_step = -1;  // -1: no validation yet
  double elapsed_s = 0;    // wall time of the run in all its processes
};

class Trainer {
 public:
  Trainer(Model& model, Backend& backend, Stream& stream, const TrainConfig& config);

  StepMetrics Step(const StepBatch& batch);
  // Sum of cross-entropies in nats over all tokens of sequences of any lengths: starts [n + 1] into ids.
  double Evaluate(std::span<const int32_t> ids, std::span<const int32_t> starts);

  Model& model() { return model_; }
  const Model& model() const { return model_; }
  AdamWOptimizer& optimizer() { return optimizer_; }
  const AdamWOptimizer& optimizer() const { return optimizer_; }
  const TrainConfig& config() const { return config_; }
  TrainerState& state() { return state_; }
  const TrainerState& state() const { return state_; }
  Context context() { return {backend_, stream_, scratch_, profile_}; }
  void set_profile(KernelProfile* profile) { profile_ = profile; }

 private:
  struct Sums {
    double loss = 0, mtp_loss = 0, balance = 0, auxiliary = 0, z = 0;
    std::vector<std::vector<int64_t>> counts;
  };
  void RunMicrobatch(const Objective& objective, const StepBatch& batch, int64_t first, int64_t count,
                     Sums& sums);
  Objective MakeObjective(const StepBatch& batch) const;
  void UpdateBiases(const std::vector<std::vector<int64_t>>& counts);
  int64_t HeldBytes() const;

  Model& model_;
  Backend& backend_;
  Stream& stream_;
  TrainConfig config_;
  Arena scratch_;
  AdamWOptimizer optimizer_;
  Microbatch microbatch_;
  TrainerState state_;
  KernelProfile* profile_ = nullptr;
};

// (max - mean) / mean and entropy / ln(experts) of one layer's counts; 0 and 1 where nothing was counted.
double MaxViolation(const std::vector<int64_t>& counts);
double LoadEntropy(const std::vector<int64_t>& counts);

}  // namespace moebius
