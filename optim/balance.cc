#include "optim/balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moebius {

double MaxViolation(const std::vector<int64_t>& counts) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (total == 0) return 0;
  const double mean = total / static_cast<double>(counts.size());
  return (static_cast<double>(*std::max_element(counts.begin(), counts.end())) - mean) / mean;
}

double LoadEntropy(const std::vector<int64_t>& counts) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (total == 0 || counts.size() < 2) return 1;
  double entropy = 0;
  for (const int64_t count : counts) {
    if (count > 0) entropy -= count / total * std::log(count / total);
  }
  return entropy / std::log(static_cast<double>(counts.size()));
}

std::vector<float> BiasMoves(const std::vector<int64_t>& counts, double speed) {
  const int64_t experts = std::ssize(counts),
                total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  std::vector<float> moves;
  moves.reserve(counts.size());
  for (const int64_t count : counts) {
    // mean - count, multiplied out so that the sign is exact.
    const int64_t below = total - count * experts;
    moves.push_back(static_cast<float>(speed) * static_cast<float>((below > 0) - (below < 0)));
  }
  return moves;
}

}  // namespace moebius
