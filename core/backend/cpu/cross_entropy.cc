#include <algorithm>
#include <cmath>
#include <limits>

#include "core/backend/cpu/cpu_backend.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/cross_entropy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
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

// exp(x - max) / sum are the probabilities. Kept apart: their logarithm together would cost digits when max
// is large.
struct Normalizer {
  float max;
  double sum;
};

// Reads x from memory once: block by block under a running maximum.
Normalizer Normalize(const float* x, int64_t n) {
  constexpr int64_t kBlock = 1024;  // stays in the first-level cache between its maximum and its sum
  float max = std::numeric_limits<float>::lowest();
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = std::min(kBlock, n - begin);
    const float new_max = std::max(max, MaxOf(x + begin, count));
    VF total = Set(0);
    Sweep(count, [&](int64_t i, auto part) HWY_ATTR {
      VF p = Exp(hn::Sub(Load(x + begin + i, part), Set(new_max)));
      if constexpr (std::is_same_v<decltype(part), Part>)
        p = hn::IfThenElseZero(hn::FirstN(F32(), part.n), p);
      total = hn::Add(total, p);
    });
    sum = sum * std::exp(static_cast<double>(max) - new_max) + Sum(total);
    max = new_max;
  }
  return {max, sum};
}

template <typename T>
void GradientOfRow(const float* x, int64_t n, int32_t target, Normalizer normalizer, float scale,
                   T* dlogits) {
  const float factor = static_cast<float>(scale / normalizer.sum);
  const float at_target =
      std::exp(x[target] - normalizer.max) * factor - scale;  // before x may be overwritten
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    Store(hn::Mul(Exp(hn::Sub(Load(x + i, part), Set(normalizer.max))), Set(factor)), dlogits + i, part);
  });
  if constexpr (std::is_same_v<T, float>) {
    dlogits[target] = at_target;
  } else {
    dlogits[target] = BF16::FromFloat(at_target);
  }
}

void CrossEntropyRow(const CrossEntropyArgs& args, int64_t row) {
  const int64_t n = args.logits.cols();
  const float* x = static_cast<const float*>(args.logits.data) + row * args.logits.stride;
  const int32_t target = static_cast<const int32_t*>(args.targets.data)[row];
  const bool counts = target >= 0;
  CHECK_LT(target, n);
  const Normalizer normalizer = counts ? Normalize(x, n) : Normalizer{0, 1};
  static_cast<float*>(args.losses.data)[row] =
      counts
          ? static_cast<float>(std::log(normalizer.sum) + (static_cast<double>(normalizer.max) - x[target]))
          : 0;
  if (!args.dlogits) return;
  const int64_t at = row * args.dlogits.stride;
  if (!counts) {
    const int64_t size = SizeOf(args.dlogits.dtype);
    std::fill_n(static_cast<char*>(args.dlogits.data) + at * size, n * size, char{0});
  } else if (args.dlogits.dtype == DType::kF32) {
    GradientOfRow(x, n, target, normalizer, args.scale, static_cast<float*>(args.dlogits.data) + at);
  } else {
    GradientOfRow(x, n, target, normalizer, args.scale, static_cast<BF16*>(args.dlogits.data) + at);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(CrossEntropyRow);

void CpuBackend::CrossEntropy(Stream&, const CrossEntropyArgs& args) {
  const int64_t n = args.logits.rows();
  const int64_t rows = std::max<int64_t>(1, 65536 / args.logits.cols());
  const auto row_of = HWY_DYNAMIC_DISPATCH(CrossEntropyRow);
  pool_.Run((n + rows - 1) / rows, [&](int64_t task, int) {
    for (int64_t row = task * rows; row < std::min(n, (task + 1) * rows); ++row) row_of(args, row);
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
