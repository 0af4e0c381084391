// What goes into a training step, and what comes out of it: settings, batches, figures, and the state that
// steps hand on.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "core/backend/kernel_args.h"
#include "core/layers/layer.h"
#include "core/layers/loss_head.h"
#include "core/model/microbatch.h"
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
  int64_t tokens = 0;  // that the model ran over, but for groups that only fill a rank's batch
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

}  // namespace moebius
