// Runs the compute and communication actions of one rank's schedule on real microbatches. Which actions, and
// in which order, is the schedule's affair alone.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/gradient_buckets.h"
#include "parallel/pipeline/timeline.h"
#include "parallel/stages.h"

namespace moebius {

// Sums over this rank's part of a step; a mesh-wide sum of each gives the step's.
struct StepSums {
  double loss = 0, mtp_loss = 0, balance = 0, auxiliary = 0, z = 0, entropy = 0, divergence = 0,
         agreement = 0;
  double routes_given = 0, routes_changed = 0;  // see RoutingStatistics; whole numbers
  std::vector<int64_t> counts;                  // [MoE layers of the whole model x experts]
};

class Engine {
 public:
  // Fills a microbatch's tokens.
  using Loader = std::function<void(int microbatch, Microbatch& to)>;

  // All outlive the engine. buckets: null for forwards only.
  Engine(Mesh& mesh, const Context& context, const Stages& stages, GradientBuckets* buckets);
  ~Engine();

  // Every action of a lowered schedule up to OPTIMIZE, which is the caller's. An error is the world's
  // failure: what was computed means nothing then.
  absl::Status RunStep(const Schedule& schedule, const Objective& objective, const Loader& load,
                       StepSums& sums);

  // Forward of one microbatch through all stages, without gradients; `losses` (per token, on the host) on
  // ranks that hold the head, else empty.
  absl::Status RunForward(const Schedule& schedule, const Objective& objective, const Loader& load,
                          std::vector<float>& losses);

  // Spans of what ran, in seconds of std::chrono::steady_clock; null (the default): none are kept.
  void set_timeline(std::vector<TimelineSpan>* spans) { spans_ = spans; }
  // The action at work and since when, for a watchdog; from any thread.
  std::string At() const;

  int peak_activations() const { return peak_live_; }  // (stage, microbatch) pairs, of the latest step
  double busy_seconds() const { return busy_s_; }      // compute actions of the latest step, waits excluded
  int64_t activation_bytes() const { return pool_.bytes(); }  // held for all microbatches

 private:
  // One microbatch on one stage.
  struct Slot {
    Slot(Backend& backend, BlockPool& pool, int num_slots);
    Microbatch microbatch;
    std::unique_ptr<Event> forward_received, backward_received;
    std::shared_ptr<std::atomic<int>> sends;  // posted and still reading this slot's memory
    bool weights_done = false;
  };
  struct Run {
    const Schedule& schedule;
    const Objective& objective;
    const Loader& load;
    StepSums& sums;
    std::vector<int> weights_left;  // of each model: microbatches whose weight gradients are still to come
  };

  Slot& Acquire(const Run& run, int stage, int microbatch);
  void Release(int model, int microbatch);
  void CollectSent();
  bool IsHere(const Run& run, int stage, int microbatch) const;
  Phase Prepare(const Run& run, const Compute& part);
  void Finish(Run& run, const Compute& part);
  void RunCompute(Run& run, const Action& action);
  void RunSteps(Run& run, const Compute& part, const Phase& phase, size_t& next, bool stop_at_wait);
  void Send(const Action& action);
  void Receive(const Run& run, const Action& action);
  void AddSums(Run& run, int stage, const Microbatch& microbatch) const;
  void SetAt(std::string text);

  Mesh& mesh_;
  const Context& context_;
  const Stages& stages_;
  GradientBuckets* buckets_;
  std::unique_ptr<Event> ready_;
  BlockPool pool_;                                           // of all slots: outlives them
  std::vector<std::vector<std::unique_ptr<Slot>>> live_;     // [models][microbatches]
  std::vector<std::vector<std::unique_ptr<Slot>>> sending_;  // [models]: done, but still being read
  std::vector<std::vector<std::unique_ptr<Slot>>> free_;     // [models]: their memory is back in the pool
  std::vector<TimelineSpan>* spans_ = nullptr;
  int live_count_ = 0;
  int peak_live_ = 0;
  double busy_s_ = 0;
  mutable std::mutex mutex_;  // of at_
  std::string at_;
};

}  // namespace moebius
