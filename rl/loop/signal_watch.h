// Steps in which all answers to every prompt earned the same, or none could be judged: a run that cannot
// learn says so and ends instead of burning time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "rl/objective/advantages.h"

namespace moebius {

class SignalWatch {
 public:
  // most: steps in a row; 0: never an end. `without`, those so far, outlives the watch and survives a stop.
  SignalWatch(int64_t most, int64_t& without) : most_(most), without_(without) {}

  // An error after `most` steps without signal; `rewards` says why. Lines for the person who watches are
  // added to `notes`.
  absl::Status Observe(bool has_signal, const GroupSignal& rewards, std::vector<std::string>& notes);

 private:
  int64_t most_;
  int64_t& without_;
};

}  // namespace moebius
