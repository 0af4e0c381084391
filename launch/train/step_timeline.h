// The timeline of one training step on all ranks: what ran when, and beside it what the schedule's simulation
// says for the mean times of the same step. As one HTML page, or as a Chrome trace.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "optim/trainer.h"

namespace moebius {

class StepTimeline {
 public:
  // The trainer must outlive it.
  explicit StepTimeline(Trainer& trainer) : trainer_(trainer) {}
  ~StepTimeline() { StopListening(); }  // also where the step failed
  StepTimeline(const StepTimeline&) = delete;
  StepTimeline& operator=(const StepTimeline&) = delete;

  // Collective, before and after the step. Clocks are set by a barrier, which is as good as the network's
  // latency.
  absl::Status Begin();
  // The page (or the trace) on rank 0, "" on the others.
  absl::StatusOr<std::string> End(bool as_trace);

 private:
  struct Exchange {
    std::string label;
    double start, end;
    bool reduction;
  };
  void StopListening();
  std::string MineAsText() const;

  Trainer& trainer_;
  double origin_ = 0;
  std::vector<TimelineSpan> compute_;
  std::mutex mutex_;  // of exchanges_
  std::vector<Exchange> exchanges_;
};

}  // namespace moebius
