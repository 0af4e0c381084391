// Steps in which all answers to every prompt earned the same, or none could be judged: a run that cannot
// learn says so and ends instead of burning time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace moebius {

class SignalWatch {
 public:
  explicit SignalWatch(int64_t most) : most_(most) {}  // steps in a row; 0: never an end

  // An error after `most` steps without signal. `judged`: whether any answer of the step has a reward. Lines
  // for the person who watches are added to `notes`.
  absl::Status Observe(bool has_signal, bool judged, std::vector<std::string>& notes);

 private:
  int64_t most_, without_ = 0;  // steps in a row
};

}  // namespace moebius
