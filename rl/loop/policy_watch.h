// Detectors over the course of a run of reinforcement: they read nothing but the metrics of its steps, so a
// run that goes on feeds them the rows that it has kept and they stand where they stood.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rl/loop/step_source.h"

namespace moebius {

class PolicyWatch {
 public:
  // Steps of a running mean, and of the first mean that it is compared with.
  static constexpr int64_t kWindow = 10;
  static constexpr int64_t kQuietSteps = 50;       // before a detector says the same again
  static constexpr double kTimes = 2;              // answers this many times as long, or as short; repetition
  static constexpr double kLeastRepetition = 0.1;  // below this share of repeated runs doubling means nothing
  static constexpr double kMostUnfinished = 0.5;   // share of answers cut at rl.max_new
  static constexpr double kGapGrowth = 0.1;        // of rl/visible_hidden_gap
  static constexpr double kLeftOutGrowth = 0.1;    // of rl/left_out_share

  // Warnings on the metrics of a step, whose number is above all earlier ones; mostly none. Looked at are
  // rl/response_tokens_mean, rl/repetition, rl/unfinished, rl/visible_hidden_gap, rl/left_out_share,
  // rl/reward_mean and rl/reward_std, as far as they are there and finite.
  std::vector<std::string> Observe(int64_t step, const NamedValues& values);

 private:
  struct Course {
    std::deque<double> recent;  // the last kWindow values
    double first_sum = 0;       // of the first kWindow values
    int64_t count = 0;
  };
  // Both once there are enough values.
  static std::optional<double> First(const Course& course);
  static std::optional<double> Recent(const Course& course);
  // The recent mean of a metric that has grown by `by` or more since the first.
  std::optional<double> Grown(const std::string& metric, double by);

  void WatchLength();
  void WatchRepetition();
  void WatchUnfinished();
  void WatchGap();
  void WatchLeftOut();
  void WatchConstantReward();
  // Unless the detector has spoken within kQuietSteps.
  void Warn(std::string_view detector, std::string text);

  std::map<std::string, Course, std::less<>> courses_;
  std::map<std::string, int64_t, std::less<>> said_at_;
  int64_t step_ = 0;
  std::vector<std::string> warnings_;
};

}  // namespace moebius
