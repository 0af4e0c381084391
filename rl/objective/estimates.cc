#include "rl/objective/estimates.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace moebius {

double PassAtK(int64_t n, int64_t c, int64_t k) {
  CHECK(0 <= c && c <= n && 1 <= k && k <= n) << n << " samples, " << c << " right, k " << k;
  if (n - c < k) return 1;
  double none = 1;
  for (int64_t i = n - c + 1; i <= n; ++i) none *= 1 - static_cast<double>(k) / i;
  return 1 - none;
}

Estimate MeanOverPrompts(std::span<const double> scores) {
  const double n = scores.size();
  if (scores.empty()) return {};
  Estimate out;
  for (const double s : scores) out.mean += s;
  out.mean /= n;
  double squares = 0;
  for (const double s : scores) squares += (s - out.mean) * (s - out.mean);
  const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
  if (*low == *high) {
    out.half_width = std::min(1.0, 3 / n);
  } else if (n > 1) {
    out.half_width = 1.96 * std::sqrt(squares / (n - 1) / n);
  }
  return out;
}

double SoftOverlong(int64_t length, int64_t maximum, int64_t margin) {
  CHECK(0 < margin && margin <= maximum) << margin << " of " << maximum;
  const double over = static_cast<double>(length - (maximum - margin)) / margin;
  return -std::clamp(over, 0.0, 1.0);
}

}  // namespace moebius
