// Dot products of rows, and weighted sums of rows, of fp32 or bf16 that is widened in registers. Included once per
// target, by matvec.cc and decode_attention.cc.
#if defined(MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
#undef MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
#else
#define MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
#endif

#include <algorithm>

#include "core/backend/cpu/simd-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

// How far ahead of the reader memory is asked for.
inline constexpr int64_t kPrefetchBytes = 2048;

// dots[r][c] = x row r · w row c, both of k elements. Every dot is one vector of partial sums over ascending k, then
// the sum of its lanes, whatever kRows and kCols are.
template <int kRows, int kCols, typename X, typename W>
HWY_INLINE void DotTile(int64_t k, const X* HWY_RESTRICT x, int64_t ldx, const W* HWY_RESTRICT w, int64_t ldw,
                        float (&dots)[kRows][kCols]) {
  VF sums[kRows][kCols];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) sums[r][c] = Set(0);
  }
  Sweep(k, [&](int64_t i, auto part) HWY_ATTR {
    VF weights[kCols];
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      weights[c] = Load(w + c * ldw + i, part);
      hwy::Prefetch(reinterpret_cast<const char*>(w + c * ldw + i) + kPrefetchBytes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const VF value = Load(x + r * ldx + i, part);
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) sums[r][c] = hn::MulAdd(value, weights[c], sums[r][c]);
    }
  });
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) dots[r][c] = Sum(sums[r][c]);
  }
}

// store(r, c, dot) for m rows of x and kCols rows of w.
template <int kCols, typename X, typename W, typename StoreDot>
HWY_INLINE void DotColumns(int64_t m, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                           const StoreDot& store) {
  const auto strip = [&](auto rows, int64_t r) HWY_ATTR {
    constexpr int kRows = decltype(rows)::value;
    float dots[kRows][kCols];
    DotTile<kRows, kCols>(k, x + r * ldx, ldx, w, ldw, dots);
    for (int i = 0; i < kRows; ++i) {
      for (int c = 0; c < kCols; ++c) store(r + i, c, dots[i][c]);
    }
  };
  int64_t r = 0;
  for (; r + 4 <= m; r += 4) strip(std::integral_constant<int, 4>(), r);
  if (r + 2 <= m) {
    strip(std::integral_constant<int, 2>(), r);
    r += 2;
  }
  if (r < m) strip(std::integral_constant<int, 1>(), r);
}

// store(r, c, dot) for m rows of x and n rows of w; w is read once.
template <typename X, typename W, typename StoreDot>
HWY_INLINE void DotBlock(int64_t m, int64_t n, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                         const StoreDot& store) {
  constexpr int kCols = 3;  // 4 x 3 sums, 3 weights and a value fill AVX2's registers
  int64_t c = 0;
  for (; c + kCols <= n; c += kCols) {
    DotColumns<kCols>(m, k, x, ldx, w + c * ldw, ldw, [&](int64_t r, int64_t i, float dot) { store(r, c + i, dot); });
  }
  for (; c < n; ++c) {
    DotColumns<1>(m, k, x, ldx, w + c * ldw, ldw, [&](int64_t r, int64_t, float dot) { store(r, c, dot); });
  }
}

inline float ToFloat(float x) { return x; }
inline float ToFloat(BF16 x) { return x.ToFloat(); }

// sums [m, n] (fp32, rows ld apart) += x [m, k] · w [k, n]: four rows of w at a time, read in memory order. Every
// element is one chain of multiply-adds over ascending k.
template <typename X, typename W>
HWY_INLINE void AddWeightedRows(int64_t m, int64_t n, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                                float* HWY_RESTRICT sums, int64_t ld) {
  int64_t i = 0;
  for (; i + 4 <= k; i += 4) {
    const W* w0 = w + i * ldw;
    for (int64_t r = 0; r < m; ++r) {
      const VF a = Set(ToFloat(x[r * ldx + i])), b = Set(ToFloat(x[r * ldx + i + 1]));
      const VF c = Set(ToFloat(x[r * ldx + i + 2])), d = Set(ToFloat(x[r * ldx + i + 3]));
      float* to = sums + r * ld;
      Sweep(n, [&](int64_t j, auto part) HWY_ATTR {
        VF sum = Load(to + j, part);
        sum = hn::MulAdd(a, Load(w0 + j, part), sum);
        sum = hn::MulAdd(b, Load(w0 + ldw + j, part), sum);
        sum = hn::MulAdd(c, Load(w0 + 2 * ldw + j, part), sum);
        sum = hn::MulAdd(d, Load(w0 + 3 * ldw + j, part), sum);
        if (r == 0) {
          for (int64_t row = 0; row < 4; ++row) hwy::Prefetch(reinterpret_cast<const char*>(w0 + (4 + row) * ldw + j));
        }
        Store(sum, to + j, part);
      });
    }
  }
  for (; i < k; ++i) {
    for (int64_t r = 0; r < m; ++r) {
      const VF a = Set(ToFloat(x[r * ldx + i]));
      float* to = sums + r * ld;
      Sweep(n, [&](int64_t j, auto part) HWY_ATTR {
        Store(hn::MulAdd(a, Load(w + i * ldw + j, part), Load(to + j, part)), to + j, part);
      });
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#endif  // MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
