#include "data/mixture.h"

#include <algorithm>
#include <cmath>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {

absl::StatusOr<MixturePattern> MixturePattern::Create(const std::vector<double>& weights) {
  if (weights.empty() || weights.size() > 256) {
    return UsageError(
        Concat("data.mixture: ", weights.size(), " parts; a mixture has 1 to 256; correct the recipe"));
  }
  double sum = 0;
  for (size_t k = 0; k < weights.size(); ++k) {
    if (!(weights[k] > 0) || !std::isfinite(weights[k])) {
      return UsageError(Concat("data.mixture[", k, "].weight: ", weights[k],
                               " is not a positive number; correct the recipe"));
    }
    sum += weights[k];
  }
  for (size_t k = 0; k < weights.size(); ++k) {
    if (weights[k] / sum * kPeriod >= 0.5) continue;
    return UsageError(Concat("data.mixture[", k, "].weight: ", weights[k], " of ", sum,
                             " in all is less than 1 of ", 2 * kPeriod, " samples; shares are steps of 1/",
                             kPeriod, "; raise it, or leave the part out"));
  }
  MixturePattern mixture;
  // Largest remainders, every part at least one step.
  std::vector<double> missing;
  int64_t left = kPeriod;
  for (const double weight : weights) {
    const double exact = weight / sum * kPeriod;
    mixture.counts_.push_back(std::max<int64_t>(1, static_cast<int64_t>(exact)));
    missing.push_back(exact - static_cast<double>(mixture.counts_.back()));
    left -= mixture.counts_.back();
  }
  for (; left != 0; left += left > 0 ? -1 : 1) {
    const auto chosen =
        left > 0 ? std::max_element(missing.begin(), missing.end()) - missing.begin()
                 : std::max_element(mixture.counts_.begin(), mixture.counts_.end()) - mixture.counts_.begin();
    const int64_t step = left > 0 ? 1 : -1;
    mixture.counts_[chosen] += step;
    missing[chosen] -= static_cast<double>(step);
  }
  if (weights.size() == 1) return mixture;
  // Position p goes to the part that is furthest behind its share.
  std::vector<int64_t> given(weights.size(), 0);
  for (int64_t p = 0; p < kPeriod; ++p) {
    size_t behind = 0;
    int64_t most = -kPeriod * kPeriod;
    for (size_t k = 0; k < weights.size(); ++k) {
      const int64_t lag = mixture.counts_[k] * (p + 1) - given[k] * kPeriod;
      if (given[k] < mixture.counts_[k] && lag > most) {
        most = lag;
        behind = k;
      }
    }
    mixture.pattern_.push_back({static_cast<int64_t>(behind), given[behind]++});
  }
  return mixture;
}

MixturePattern::Pick MixturePattern::At(int64_t global_index) const {
  if (pattern_.empty()) return {0, global_index};
  Pick pick = pattern_[global_index % kPeriod];
  pick.index += global_index / kPeriod * counts_[pick.part];
  return pick;
}

}  // namespace moebius
