// Learning-rate schedules: a pure function of the step.
#pragma once

#include <cstdint>
#include <vector>

namespace moebius {

enum class ScheduleKind { kConstant, kCosine, kWsd, kPiecewise };
enum class DecayShape { kLinear, kOneMinusSqrt, kHalfCosine };

struct SchedulePhase {
  int64_t steps = 0;
  double from_lr = 0;
  double to_lr = 0;
  DecayShape shape = DecayShape::kHalfCosine;
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kConstant;
  double lr = 3e-4;
  double min_lr = 0;
  int64_t warmup_steps = 0;  // linear from lr / warmup_steps to lr
  int64_t decay_steps = 0;   // cosine: 0 is until the last step; WSD: the last decay_steps of the run
  DecayShape decay_shape = DecayShape::kOneMinusSqrt;  // WSD
  std::vector<SchedulePhase> phases;                   // piecewise, after the warm-up; the last to_lr holds
};

// The rate of update `step` (1 for the first) in a run of `total_steps`.
double LearningRate(const ScheduleConfig& config, int64_t step, int64_t total_steps);

}  // namespace moebius
