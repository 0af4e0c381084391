// The sums that turn a row of logits into probabilities. Included once per target.
#if defined(MOEBIUS_CORE_BACKEND_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_BACKEND_CPU_SOFTMAX_INL_H_
#undef MOEBIUS_CORE_BACKEND_CPU_SOFTMAX_INL_H_
#else
#define MOEBIUS_CORE_BACKEND_CPU_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

HWY_INLINE float MaxOf(const float* x, int64_t n) {
  VF max = Set(std::numeric_limits<float>::lowest());
  VF other = max;
  int64_t i = 0;
  const int64_t lanes = Lanes();
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    max = hn::Max(max, Load(x + i));
    other = hn::Max(other, Load(x + i + lanes));
  }
  float result = Max(hn::Max(max, other));
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

// With z = inverse_temperature * (x - max): exp(z) / sum are the probabilities, exp(z) * z sums up to
// `weighted`. Kept apart: their logarithm together would cost digits when max is large.
struct Normalizer {
  float max;
  double sum;
  double weighted;
  double Entropy() const { return std::log(sum) - weighted / sum; }
};

// Reads x from memory once: block by block under a running maximum.
template <bool kWeighted>
Normalizer Normalize(const float* x, int64_t n, float inverse_temperature) {
  constexpr int64_t kBlock = 1024;  // stays in the first-level cache between its maximum and its sum
  float max = std::numeric_limits<float>::lowest();
  double sum = 0, weighted = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = std::min(kBlock, n - begin);
    const float new_max = std::max(max, MaxOf(x + begin, count));
    VF total = Set(0), weighted_total = Set(0);
    Sweep(count, [&](int64_t i, auto part) HWY_ATTR {
      const VF z = hn::Mul(hn::Sub(Load(x + begin + i, part), Set(new_max)), Set(inverse_temperature));
      VF p = Exp(z);
      if constexpr (std::is_same_v<decltype(part), Part>)
        p = hn::IfThenElseZero(hn::FirstN(F32(), part.n), p);
      total = hn::Add(total, p);
      // A probability of 0 has no share, whatever its logarithm.
      if constexpr (kWeighted) {
        weighted_total = hn::Add(weighted_total, hn::IfThenElseZero(hn::Gt(p, Set(0)), hn::Mul(p, z)));
      }
    });
    const double fall = (static_cast<double>(max) - new_max) * inverse_temperature, scale = std::exp(fall);
    if constexpr (kWeighted) {
      weighted = (sum > 0 ? scale * (weighted + fall * sum) : 0) + Sum(weighted_total);
    }
    sum = sum * scale + Sum(total);
    max = new_max;
  }
  return {max, sum, weighted};
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#endif  // guard
