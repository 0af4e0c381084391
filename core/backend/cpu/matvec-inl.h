// Dot products of rows, and weighted sums of rows, of fp32 or bf16 that is widened in registers. Included
// once per target, by matvec.cc and decode_attention.cc.
#if defined(MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
#undef MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
#else
#define MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
#endif

#include <algorithm>
#include <type_traits>

#include "core/backend/cpu/simd-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

using WordTag = hn::RebindToUnsigned<F32>;

// A step of a dot product: kVectors * Lanes() elements of x and of w.
template <typename X, typename W>
struct DotStep {
  static constexpr int64_t kVectors = 1;
  using Vec = VF;
  template <typename T, class P>
  static HWY_INLINE VF Load(const T* p, P part) {
    return HWY_NAMESPACE::Load(p, part);
  }
  static HWY_INLINE VF Add(VF x, VF w, VF sum) { return hn::MulAdd(x, w, sum); }
};

// Of bf16, for processors that multiply it (the caller checks: AVX512-BF16): neighbours in a 32-bit word are
// multiplied and added to its lane.
struct NativeDotStep {
  static constexpr int64_t kVectors = 2;
  using Vec = hn::Vec<WordTag>;
  static HWY_INLINE Vec Load(const BF16* p, Whole) {
    return hn::LoadU(WordTag(), reinterpret_cast<const uint32_t*>(p));
  }
  static HWY_INLINE Vec Load(const BF16* p, Part part) {
    HWY_ALIGN BF16 room[2 * HWY_MAX_BYTES / sizeof(float)] = {};
    for (int64_t i = 0; i < part.n; ++i) room[i] = p[i];
    return Load(room, Whole());
  }
  static HWY_INLINE VF Add(Vec x, Vec w, VF sum) {
#if HWY_TARGET == HWY_AVX3
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(x.raw), "v"(w.raw));
    return sum;
#else
    const auto low = [](Vec v) HWY_ATTR { return hn::BitCast(F32(), hn::ShiftLeft<16>(v)); };
    const auto high = [](Vec v) HWY_ATTR {
      return hn::BitCast(F32(), hn::And(v, hn::Set(WordTag(), 0xFFFF0000u)));
    };
    return hn::MulAdd(high(x), high(w), hn::MulAdd(low(x), low(w), sum));
#endif
  }
};

// The sums of the lanes of four vectors, each by the same tree.
HWY_INLINE void SumFour(VF a, VF b, VF c, VF d, float* sums) {
#if HWY_TARGET == HWY_SCALAR
  sums[0] = hn::GetLane(a), sums[1] = hn::GetLane(b), sums[2] = hn::GetLane(c), sums[3] = hn::GetLane(d);
#else
  const F32 f;
  const hn::RepartitionToWide<WordTag> d64;
  const VF ab = hn::Add(hn::InterleaveLower(f, a, b), hn::InterleaveUpper(f, a, b));
  const VF cd = hn::Add(hn::InterleaveLower(f, c, d), hn::InterleaveUpper(f, c, d));
  const auto ab64 = hn::BitCast(d64, ab), cd64 = hn::BitCast(d64, cd);
  const VF blocks = hn::Add(hn::BitCast(f, hn::InterleaveLower(d64, ab64, cd64)),
                            hn::BitCast(f, hn::InterleaveUpper(d64, ab64, cd64)));
  // Blocks of four lanes are added by halves.
  constexpr size_t kLanes = hn::MaxLanes(F32());
  if constexpr (kLanes == 4) {
    hn::StoreU(blocks, f, sums);
  } else {
    const hn::Half<F32> half;
    const auto two = hn::Add(hn::LowerHalf(half, blocks), hn::UpperHalf(half, blocks));
    if constexpr (kLanes == 8) {
      hn::StoreU(two, half, sums);
    } else {
      const hn::Half<decltype(half)> quarter;
      hn::StoreU(hn::Add(hn::LowerHalf(quarter, two), hn::UpperHalf(quarter, two)), quarter, sums);
    }
  }
#endif
}

// dots[r * ldd + c * apart] = x row r · w row c * apart, both of k elements. Every dot is one vector of
// partial sums over ascending k, then the same tree over its lanes, whatever kRows and kCols are. kPrefetch
// asks for the next row of every stream of w on the way.
template <class Step, int kRows, int kCols, bool kPrefetch = false, typename X, typename W>
HWY_NOINLINE void DotTile(int64_t k, const X* HWY_RESTRICT x, int64_t ldx, const W* HWY_RESTRICT w,
                          int64_t ldw, int64_t apart, float* HWY_RESTRICT dots, int64_t ldd) {
  constexpr int kSums = kRows * kCols;
  VF sums[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sums[i] = Set(0);
  // The fewer of rows and columns are kept in registers over a step, the others pass.
  const auto step = [&](int64_t i, auto part) HWY_ATTR {
    if constexpr (kRows <= kCols) {
      typename Step::Vec values[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) values[r] = Step::Load(x + r * ldx + i, part);
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) {
        const auto weight = Step::Load(w + c * apart * ldw + i, part);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
          sums[r * kCols + c] = Step::Add(values[r], weight, sums[r * kCols + c]);
      }
    } else {
      typename Step::Vec weights[kCols];
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) weights[c] = Step::Load(w + c * apart * ldw + i, part);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const auto value = Step::Load(x + r * ldx + i, part);
#pragma GCC unroll 4
        for (int c = 0; c < kCols; ++c)
          sums[r * kCols + c] = Step::Add(value, weights[c], sums[r * kCols + c]);
      }
    }
  };
  const int64_t width = Step::kVectors * Lanes();
  int64_t i = 0;
  if constexpr (kPrefetch) {
    constexpr int64_t kLine = 64 / sizeof(W);
    for (; i + kLine <= k; i += kLine) {
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) hwy::Prefetch(w + (c * apart + 1) * ldw + i);
      for (int64_t at = i; at < i + kLine; at += width) step(at, Whole());
    }
  }
  for (; i + width <= k; i += width) step(i, Whole());
  if (i < k) step(i, Part{k - i});
  float totals[(kSums + 3) / 4 * 4];
  const auto at = [&](int j) HWY_ATTR { return j < kSums ? sums[j] : Set(0); };
#pragma GCC unroll 8
  for (int j = 0; j < kSums; j += 4) SumFour(at(j), at(j + 1), at(j + 2), at(j + 3), totals + j);
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) dots[r * ldd + c * apart] = totals[r * kCols + c];
  }
}

// The same for the last rows of x, at most kMost; three or more have arithmetic to hide a prefetch behind.
template <class Step, int kMost, int kCols, typename X, typename W>
HWY_INLINE void DotRest(int64_t rows, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                        int64_t apart, float* dots, int64_t ldd) {
  if (rows == kMost) return DotTile<Step, kMost, kCols, (kMost > 2)>(k, x, ldx, w, ldw, apart, dots, ldd);
  if constexpr (kMost > 1) DotRest<Step, kMost - 1, kCols>(rows, k, x, ldx, w, ldw, apart, dots, ldd);
}

// The same for m rows of x, in strips whose sums fill the registers. The last strip calls for the rows of w
// that come next.
template <class Step, int kCols, typename X, typename W>
HWY_INLINE void DotColumns(int64_t m, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                           int64_t apart, float* dots, int64_t ldd) {
  constexpr int kStrip = kCols == 4 ? 2 : hn::MaxLanes(F32()) >= 16 ? 8 : 4;
  int64_t r = 0;
  for (; r + kStrip <= m; r += kStrip) {
    const auto tile = kStrip > 2 && r + kStrip == m ? DotTile<Step, kStrip, kCols, true, X, W>
                                                    : DotTile<Step, kStrip, kCols, false, X, W>;
    tile(k, x + r * ldx, ldx, w, ldw, apart, dots + r * ldd, ldd);
  }
  if (r < m) DotRest<Step, kStrip - 1, kCols>(m - r, k, x + r * ldx, ldx, w, ldw, apart, dots + r * ldd, ldd);
}

// dots[r * ldd + c] = x row r · w row c for m rows of x and n rows of w; w is read once. Columns that are
// made together lie far apart: each is then a long stream of its own that the processor's prefetchers follow
// (twice the bandwidth of neighbouring rows, which end before a prefetcher has caught up).
template <class Step, typename X, typename W>
HWY_INLINE void DotBlock(int64_t m, int64_t n, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                         float* dots, int64_t ldd) {
  const auto columns = [&](auto streams, int64_t begin, int64_t end) HWY_ATTR {
    constexpr int kStreams = decltype(streams)::value;
    const int64_t apart = (end - begin) / kStreams;
    for (int64_t c = begin; c < begin + apart; ++c) {
      DotColumns<Step, kStreams>(m, k, x, ldx, w + c * ldw, ldw, apart, dots + c, ldd);
    }
    return begin + kStreams * apart;
  };
  // One row or two (a token and its draft) have registers for more columns; of more rows 4 x 3 sums, 3
  // weights and a value fill AVX2's.
  const int64_t done = m <= 2 ? columns(std::integral_constant<int, 4>(), 0, n)
                              : columns(std::integral_constant<int, 3>(), 0, n);
  columns(std::integral_constant<int, 1>(), done, n);
}

inline float ToFloat(float x) { return x; }
inline float ToFloat(BF16 x) { return x.ToFloat(); }

// Rows [0, kRows) of sums += x [kRows, kTerms] · w [kTerms, n].
template <int kRows, int kTerms, typename X, typename W>
HWY_NOINLINE void AddTerms(int64_t n, const X* x, int64_t ldx, const W* w, int64_t ldw,
                           float* HWY_RESTRICT sums, int64_t ld) {
  VF factors[kRows][kTerms];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTerms; ++t) factors[r][t] = Set(ToFloat(x[r * ldx + t]));
  }
  Sweep(n, [&](int64_t j, auto part) HWY_ATTR {
    VF total[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) total[r] = Load(sums + r * ld + j, part);
#pragma GCC unroll 4
    for (int t = 0; t < kTerms; ++t) {
      const VF value = Load(w + t * ldw + j, part);
      hwy::Prefetch(w + (kTerms + t) * ldw + j);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) total[r] = hn::MulAdd(factors[r][t], value, total[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) Store(total[r], sums + r * ld + j, part);
  });
}

// sums [m, n] (fp32, rows ld apart) += x [m, k] · w [k, n]: four rows of w at a time, read in memory order.
// Every element is one chain of multiply-adds over ascending k.
template <typename X, typename W>
HWY_INLINE void AddWeightedRows(int64_t m, int64_t n, int64_t k, const X* x, int64_t ldx, const W* w,
                                int64_t ldw, float* sums, int64_t ld) {
  const auto terms = [&](auto count, int64_t i) HWY_ATTR {
    constexpr int kTerms = decltype(count)::value;
    int64_t r = 0;
    for (; r + 2 <= m; r += 2)
      AddTerms<2, kTerms>(n, x + r * ldx + i, ldx, w + i * ldw, ldw, sums + r * ld, ld);
    if (r < m) AddTerms<1, kTerms>(n, x + r * ldx + i, ldx, w + i * ldw, ldw, sums + r * ld, ld);
  };
  int64_t i = 0;
  for (; i + 4 <= k; i += 4) terms(std::integral_constant<int, 4>(), i);
  for (; i < k; ++i) terms(std::integral_constant<int, 1>(), i);
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#endif  // MOEBIUS_CORE_BACKEND_CPU_MATVEC_INL_H_
