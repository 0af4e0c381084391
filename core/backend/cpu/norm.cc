#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/pieces.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

template <typename T>
HWY_INLINE T* Row(const TensorView& view, int64_t row) {
  return static_cast<T*>(view.data) + row * view.stride;
}

// s is rounded to T even where it is not stored: a norm that is made again from a stored sum has the same
// bits.
template <typename T>
void NormRows(const RmsNormArgs& args, int64_t begin, int64_t end) {
  const int64_t n = args.x.cols();
  const float* gain = static_cast<const float*>(args.gain.data);
  for (int64_t r = begin; r < end; ++r) {
    const T *x = Row<T>(args.x, r), *add = args.add ? Row<T>(args.add, r) : nullptr;
    T *sum = args.sum ? Row<T>(args.sum, r) : nullptr, *y = Row<T>(args.y, r);
    const auto load = [&](int64_t i, auto part) HWY_ATTR {
      const VF v = Load(x + i, part);
      return add != nullptr ? Rounded<T>(hn::Add(v, Load(add + i, part))) : v;
    };
    VF squares = Set(0);
    // `y` may be x, so the second pass reads what the first one stored, or adds again.
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      const VF s = load(i, part);
      if (sum != nullptr) StoreExact(s, sum + i, part);
      squares = hn::MulAdd(s, s, squares);
    });
    const float rstd = 1.0f / std::sqrt(Sum(squares) / static_cast<float>(n) + args.epsilon);
    static_cast<float*>(args.rstd.data)[r] = rstd;
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      const VF s = sum != nullptr ? Load(sum + i, part) : load(i, part);
      Store(hn::Mul(hn::Mul(s, Set(rstd)), Load(gain + i, part)), y + i, part);
    });
  }
}

void Norm(const RmsNormArgs& args, int64_t begin, int64_t end) {
  args.x.dtype == DType::kF32 ? NormRows<float>(args, begin, end) : NormRows<BF16>(args, begin, end);
}

// With h = x * rstd and g = dy * gain: dx = rstd * (g - h * mean(g h)) + residual; dgain gets dy * h.
template <typename T>
void NormBackwardRows(const RmsNormBackwardArgs& args, int64_t begin, int64_t end, float* dgain) {
  const int64_t n = args.x.cols();
  const float* gain = static_cast<const float*>(args.gain.data);
  std::memset(dgain, 0, n * sizeof(float));
  for (int64_t r = begin; r < end; ++r) {
    const T *x = Row<T>(args.x, r), *dy = Row<T>(args.dy, r);
    const T* residual = args.residual ? Row<T>(args.residual, r) : nullptr;
    T* dx = Row<T>(args.dx, r);
    const float rstd = static_cast<const float*>(args.rstd.data)[r];
    VF dot = Set(0);
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      dot = hn::MulAdd(hn::Mul(Load(dy + i, part), Load(gain + i, part)), Load(x + i, part), dot);
    });
    const VF mean = Set(Sum(dot) * rstd / static_cast<float>(n));
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      const VF v = Load(dy + i, part), h = hn::Mul(Load(x + i, part), Set(rstd));
      VF d = hn::Mul(hn::NegMulAdd(h, mean, hn::Mul(v, Load(gain + i, part))), Set(rstd));
      if (residual != nullptr) d = hn::Add(d, Load(residual + i, part));
      Store(hn::MulAdd(v, h, Load(dgain + i, part)), dgain + i, part);
      Store(d, dx + i, part);
    });
  }
}

void NormBackward(const RmsNormBackwardArgs& args, int64_t begin, int64_t end, float* dgain) {
  args.x.dtype == DType::kF32 ? NormBackwardRows<float>(args, begin, end, dgain)
                              : NormBackwardRows<BF16>(args, begin, end, dgain);
}

// out = sum over `blocks` rows, in order.
void SumBlocks(const float* partial, int64_t blocks, int64_t stride, int64_t n, float* out) {
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    VF sum = Set(0);
    for (int64_t b = 0; b < blocks; ++b) sum = hn::Add(sum, Load(partial + b * stride + i, part));
    Store(sum, out + i, part);
  });
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(Norm);
HWY_EXPORT(NormBackward);
HWY_EXPORT(SumBlocks);

void CpuBackend::RmsNorm(Stream&, const RmsNormArgs& args) {
  ForRowRanges(pool_, args.x.rows(), args.x.cols(), [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(Norm)(args, begin, end);
  });
}

void CpuBackend::RmsNormBackward(Stream&, const RmsNormBackwardArgs& args) {
  // Blocks of rows each make their own dgain; at most 64, so that adding them up stays cheap.
  constexpr int64_t kMaxBlocks = 64, kBlockElements = 32768;
  const int64_t rows = args.x.rows(), n = args.x.cols();
  const int64_t step =
      std::max({int64_t{1}, (rows + kMaxBlocks - 1) / kMaxBlocks, kBlockElements / std::max<int64_t>(n, 1)});
  const int64_t blocks = (rows + step - 1) / step;
  const int64_t stride = (n + 15) / 16 * 16;
  float* partial = static_cast<float*>(SharedScratch(blocks * stride * static_cast<int64_t>(sizeof(float))));
  pool_.Run(blocks, [&](int64_t b, int) {
    HWY_DYNAMIC_DISPATCH(NormBackward)(args, b * step, std::min((b + 1) * step, rows), partial + b * stride);
  });
  HWY_DYNAMIC_DISPATCH(SumBlocks)(partial, blocks, stride, n, args.dgain.as<float>());
}

}  // namespace moebius
#endif  // HWY_ONCE
