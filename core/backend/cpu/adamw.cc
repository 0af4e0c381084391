#include <cmath>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/pieces.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/adamw.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

// One pass over memory: everything of an element is read once and written once, its gradient to zero.
template <typename M, typename V>
void UpdateRange(const AdamWArgs& args, int64_t begin, int64_t end) {
  float* master = static_cast<float*>(args.master.data) + begin;
  M* m = static_cast<M*>(args.m.data) + begin;
  V* v = static_cast<V*>(args.v.data) + begin;
  float* grad = static_cast<float*>(args.grad.data) + begin;
  BF16* weight = args.weight ? static_cast<BF16*>(args.weight.data) + begin : nullptr;
  float* ema = args.ema ? static_cast<float*>(args.ema.data) + begin : nullptr;
  // In double: 1 - beta^step of an early step loses digits in fp32.
  const double step = static_cast<double>(args.step);
  const VF to_m_hat = Set(static_cast<float>(1 / (1 - std::pow(static_cast<double>(args.beta1), step))));
  const VF to_v_hat = Set(static_cast<float>(1 / (1 - std::pow(static_cast<double>(args.beta2), step))));
  const VF beta1 = Set(args.beta1), rest1 = Set(1 - args.beta1), beta2 = Set(args.beta2),
           rest2 = Set(1 - args.beta2);
  const VF scale = Set(args.grad_scale), lr = Set(args.lr), epsilon = Set(args.epsilon),
           decay = Set(args.weight_decay);
  const VF ema_decay = Set(args.ema_decay), ema_rest = Set(1 - args.ema_decay);
  Sweep(end - begin, [&](int64_t i, auto part) HWY_ATTR {
    const VF g = hn::Mul(Load(grad + i, part), scale);
    const VF new_m = hn::MulAdd(rest1, g, hn::Mul(beta1, Load(m + i, part)));
    const VF new_v = hn::MulAdd(hn::Mul(rest2, g), g, hn::Mul(beta2, Load(v + i, part)));
    const VF root = hn::Sqrt(hn::Mul(new_v, to_v_hat));
    const VF w = Load(master + i, part);
    const VF move = hn::MulAdd(decay, w, hn::Div(hn::Mul(new_m, to_m_hat), hn::Add(root, epsilon)));
    const VF new_w = hn::NegMulAdd(lr, move, w);
    Store(new_m, m + i, part);
    Store(new_v, v + i, part);
    Store(new_w, master + i, part);
    Store(Set(0), grad + i, part);
    if (weight != nullptr) Store(new_w, weight + i, part);
    if (ema != nullptr) {
      Store(hn::MulAdd(ema_rest, new_w, hn::Mul(ema_decay, Load(ema + i, part))), ema + i, part);
    }
  });
}

void Update(const AdamWArgs& args, int64_t begin, int64_t end) {
  const bool m = args.m.dtype == DType::kF32, v = args.v.dtype == DType::kF32;
  if (m && v) return UpdateRange<float, float>(args, begin, end);
  if (m) return UpdateRange<float, BF16>(args, begin, end);
  if (v) return UpdateRange<BF16, float>(args, begin, end);
  UpdateRange<BF16, BF16>(args, begin, end);
}

double SquaresOf(const float* x, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, hn::ScalableTag<double>> half;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto a = hn::PromoteTo(d, hn::LoadU(half, x + i)),
               b = hn::PromoteTo(d, hn::LoadU(half, x + i + lanes));
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(Update);
HWY_EXPORT(SquaresOf);

void CpuBackend::AdamW(Stream&, const AdamWArgs& args) {
  ForRanges(pool_, args.master.elements(), [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(Update)(args, begin, end);
  });
}

void CpuBackend::SumSquares(Stream&, TensorView x, TensorView sum) {
  constexpr int64_t kBlock = 65536;
  const int64_t n = x.elements(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks);
  pool_.Run(blocks, [&](int64_t b, int) {
    partial[b] =
        HWY_DYNAMIC_DISPATCH(SquaresOf)(x.as<float>() + b * kBlock, std::min(kBlock, n - b * kBlock));
  });
  double total = 0;
  for (const double p : partial) total += p;
  *sum.as<double>() = total;
}

}  // namespace moebius
#endif  // HWY_ONCE
