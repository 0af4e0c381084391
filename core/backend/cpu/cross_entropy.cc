#include <algorithm>
#include <cmath>

#include "core/backend/cpu/cpu_backend.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/cross_entropy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

// d loss / dx = p * (loss_factor + entropy_factor * (ln p + entropy)), less loss_factor at the target.
struct RowFactors {
  float inverse_temperature;
  float loss;     // scale * weight * inverse temperature
  float entropy;  // entropy_scale * inverse temperature
};

template <typename T>
void GradientOfRow(const float* x, int64_t n, int32_t target, const Normalizer& normalizer,
                   const RowFactors& factors, T* dlogits) {
  const VF max = Set(normalizer.max), inverse_temperature = Set(factors.inverse_temperature);
  const auto z_of = [&](int64_t i, auto part)
                        HWY_ATTR { return hn::Mul(hn::Sub(Load(x + i, part), max), inverse_temperature); };
  const auto finish = [&](float at_target) {
    if constexpr (std::is_same_v<T, float>) {
      dlogits[target] = at_target;
    } else {
      dlogits[target] = BF16::FromFloat(at_target);
    }
  };
  // Before x may be overwritten.
  const float z_target = (x[target] - normalizer.max) * factors.inverse_temperature;
  const float p_factor = static_cast<float>(factors.loss / normalizer.sum);
  if (factors.entropy == 0) {
    Sweep(n, [&](int64_t i, auto part)
                 HWY_ATTR { Store(hn::Mul(Exp(z_of(i, part)), Set(p_factor)), dlogits + i, part); });
    return finish(std::exp(z_target) * p_factor - factors.loss);
  }
  const float e_factor = static_cast<float>(factors.entropy / normalizer.sum);
  // ln p + entropy = z + shift
  const float shift = static_cast<float>(-normalizer.weighted / normalizer.sum);
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    const VF z = z_of(i, part), p = Exp(z);
    const VF by = hn::MulAdd(Set(e_factor), hn::Add(z, Set(shift)), Set(p_factor));
    Store(hn::IfThenElseZero(hn::Gt(p, Set(0)), hn::Mul(p, by)), dlogits + i, part);
  });
  const float p = std::exp(z_target);  // where it is 0, its logarithm may be infinite
  finish((p > 0 ? p * (e_factor * (z_target + shift) + p_factor) : 0) - factors.loss);
}

void CrossEntropyRow(const CrossEntropyArgs& args, int64_t row) {
  const int64_t n = args.logits.cols();
  const float* x = static_cast<const float*>(args.logits.data) + row * args.logits.stride;
  const int32_t target = static_cast<const int32_t*>(args.targets.data)[row];
  const bool counts = target >= 0;
  CHECK_LT(target, n);
  Normalizer normalizer{0, 1, 0};
  if (counts) {
    normalizer = args.entropies ? Normalize<true>(x, n, args.inverse_temperature)
                                : Normalize<false>(x, n, args.inverse_temperature);
  }
  const double behind = counts ? (static_cast<double>(normalizer.max) - x[target]) : 0;
  static_cast<float*>(args.losses.data)[row] =
      counts ? static_cast<float>(std::log(normalizer.sum) + behind * args.inverse_temperature) : 0;
  if (args.entropies) {
    static_cast<float*>(args.entropies.data)[row] = counts ? static_cast<float>(normalizer.Entropy()) : 0;
  }
  if (!args.dlogits) return;
  const int64_t at = row * args.dlogits.stride;
  if (!counts) {
    const int64_t size = SizeOf(args.dlogits.dtype);
    std::fill_n(static_cast<char*>(args.dlogits.data) + at * size, n * size, char{0});
    return;
  }
  const float weight = args.weights ? static_cast<const float*>(args.weights.data)[row] : 1;
  const RowFactors factors{.inverse_temperature = args.inverse_temperature,
                           .loss = args.scale * weight * args.inverse_temperature,
                           .entropy = args.entropy_scale * args.inverse_temperature};
  if (args.dlogits.dtype == DType::kF32) {
    GradientOfRow(x, n, target, normalizer, factors, static_cast<float*>(args.dlogits.data) + at);
  } else {
    GradientOfRow(x, n, target, normalizer, factors, static_cast<BF16*>(args.dlogits.data) + at);
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
