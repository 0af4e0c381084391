// What a run costs on a cluster: seconds of a step, memory, days and dollars, with what they are made of.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "launch/plan/cluster_costs.h"

namespace moebius {

struct ClusterPlan {
  std::shared_ptr<const proto::Recipe> recipe;  // that it is of
  LayoutPlan layout;
  std::vector<RankState> states;  // of each pipeline rank
  double step_s = 0;              // of the last batch of a ramp, as all that follows
  double tokens_per_s = 0;        // of a rank
  double flops_per_s = 0;         // of a rank, trained ones, attention at its causal half
  double mfu = 0;                 // over the bf16 peak
  double run_s = 0;               // all steps, each of its own batch
  double peak_bytes = 0;          // of the fullest rank, reserved_gb included
  bool fits = false;
};

// Share of the time that trains, and the seconds between checkpoints that give the most (Young 1974).
struct Goodput {
  double share = 1;
  double save_every_s = 0;
};
// save_s: that a checkpoint holds up training; restart_s: from a failure to the next step.
Goodput GoodputOf(double rank_hours_between_failures, int ranks, double save_s, double restart_s);

// On paper: predicts in milliseconds, runs nothing. config and cluster outlive it.
class ClusterPlanner {
 public:
  ClusterPlanner(const ModelConfig& config, const proto::Cluster& cluster)
      : config_(config), cluster_(cluster) {}

  // UsageError for a layout that does not fit ranks, model or batch; one that does not fit memory is a plan.
  absl::StatusOr<ClusterPlan> Predict(const proto::Recipe& recipe, int ranks);
  // For people: the layout, where a microbatch's and a step's time goes, memory, the whole run.
  std::string Describe(const ClusterPlan& plan);

  // Layouts of `ranks` ranks that fit memory, fastest first. Tried are powers of two and the recipe's own
  // sizes, all published schedules, microbatches of 1, 2 and 4 sequences, SELECTIVE and BLOCKS and the
  // recipe's own recomputation.
  struct Found {
    std::vector<ClusterPlan> plans;
    int tried = 0;
  };
  // The reason why, when no layout could be planned at all.
  absl::StatusOr<Found> Search(const proto::Recipe& recipe, int ranks);
  // The first `most` as a table.
  std::string Describe(const Found& found, size_t most) const;

 private:
  const ActivationBytes& Activations(const proto::Recipe& recipe);
  // Without its run: step_s and what follows from it.
  absl::StatusOr<ClusterPlan> Prepare(const proto::Recipe& recipe, int ranks, int64_t sequences);
  absl::Status Run(ClusterPlan& plan, int64_t sequences) const;
  // run_s; peak_bytes and fits over all batches.
  absl::Status AddOtherBatches(ClusterPlan& plan);

  const ModelConfig& config_;
  const proto::Cluster& cluster_;
  std::map<int, ActivationBytes> activations_;  // by recompute.policy
};

}  // namespace moebius
