// Which part of a weighted mixture sample g comes from, and which of that part's samples it is: a fixed
// pattern of kPeriod samples, repeated, in which every part is spread as evenly as its share allows. So the
// shares hold in every batch, not only on average, and the answer is a pure function of g.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace moebius {

class MixturePattern {
 public:
  static constexpr int64_t kPeriod = 4096;

  struct Pick {
    int64_t part = 0;
    int64_t index = 0;  // counts that part's samples from 0 without end
  };

  // Shares are weights over their sum, in steps of 1 / kPeriod, at least one step each. UsageError (64) for
  // no parts, too many, or a weight that is not a positive finite number or rounds to no step.
  static absl::StatusOr<MixturePattern> Create(const std::vector<double>& weights);

  Pick At(int64_t global_index) const;
  // Samples of `part` in one period.
  int64_t count(int64_t part) const { return counts_[part]; }

 private:
  std::vector<int64_t> counts_;  // a part
  std::vector<Pick> pattern_;    // a position of the period; empty for a single part
};

}  // namespace moebius
