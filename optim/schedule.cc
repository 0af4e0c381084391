#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moebius {
namespace {

// From `from` at progress 0 to `to` at progress 1.
double Decay(double from, double to, double progress, DecayShape shape) {
  progress = std::clamp(progress, 0.0, 1.0);
  double left = 1 - progress;
  if (shape == DecayShape::kOneMinusSqrt) left = 1 - std::sqrt(progress);
  if (shape == DecayShape::kHalfCosine) left = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return to + (from - to) * left;
}

double Piecewise(const ScheduleConfig& config, int64_t step) {
  double lr = config.lr;
  for (const SchedulePhase& phase : config.phases) {
    if (step <= phase.steps) {
      return Decay(phase.from_lr, phase.to_lr, static_cast<double>(step) / phase.steps, phase.shape);
    }
    step -= phase.steps;
    lr = phase.to_lr;
  }
  return lr;
}

}  // namespace

double LearningRate(const ScheduleConfig& config, int64_t step, int64_t total_steps) {
  if (step <= config.warmup_steps) return config.lr * static_cast<double>(step) / config.warmup_steps;
  const int64_t after = step - config.warmup_steps;
  switch (config.kind) {
    case ScheduleKind::kConstant:
      return config.lr;
    case ScheduleKind::kCosine: {
      const int64_t span = config.decay_steps > 0 ? config.decay_steps : total_steps - config.warmup_steps;
      return Decay(config.lr, config.min_lr, span > 0 ? static_cast<double>(after) / span : 1,
                   DecayShape::kHalfCosine);
    }
    case ScheduleKind::kWsd: {
      const int64_t begin = total_steps - config.decay_steps;
      if (step <= begin) return config.lr;
      return Decay(config.lr, config.min_lr, static_cast<double>(step - begin) / config.decay_steps,
                   config.decay_shape);
    }
    case ScheduleKind::kPiecewise:
      return Piecewise(config, after);
  }
  return config.lr;
}

}  // namespace moebius
