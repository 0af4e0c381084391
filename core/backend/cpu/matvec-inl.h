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

// A step of a dot product: kVectors * Lanes() elements of x and of w, widened to fp32.
template <typename X, typename W>
struct DotStep {
  static constexpr int64_t kVectors = 1;
  static constexpr int kWideColumns = 3;  // 4 x 3 sums, 3 weights and a value fill AVX2's registers
  using XVec = VF;
  using WVec = VF;
  template <class P>
  static HWY_INLINE VF LoadX(const X* x, P part) {
    return Load(x, part);
  }
  template <class P>
  static HWY_INLINE VF LoadW(const W* w, P part) {
    return Load(w, part);
  }
  static HWY_INLINE VF Add(VF x, VF w, VF sum) { return hn::MulAdd(x, w, sum); }
};

// Two neighbours in a 32-bit word are split by a shift and a mask, half the work of widening them in order.
template <>
struct DotStep<BF16, BF16> {
  static constexpr int64_t kVectors = 2;
  static constexpr int kWideColumns = 4;  // 2 x 4 sums: the split halves of two values take four registers
  struct Pair {
    VF even, odd;
  };
  using XVec = Pair;
  using WVec = Pair;
  static HWY_INLINE Pair Split(hn::Vec<WordTag> words) {
    return {hn::BitCast(F32(), hn::ShiftLeft<16>(words)),
            hn::BitCast(F32(), hn::And(words, hn::Set(WordTag(), 0xFFFF0000u)))};
  }
  static HWY_INLINE Pair LoadX(const BF16* x, Whole) {
    return Split(hn::LoadU(WordTag(), reinterpret_cast<const uint32_t*>(x)));
  }
  static HWY_INLINE Pair LoadX(const BF16* x, Part part) {
    HWY_ALIGN BF16 room[2 * HWY_MAX_BYTES / sizeof(float)] = {};
    for (int64_t i = 0; i < part.n; ++i) room[i] = x[i];
    return LoadX(room, Whole());
  }
  template <class P>
  static HWY_INLINE Pair LoadW(const BF16* w, P part) {
    return LoadX(w, part);
  }
  static HWY_INLINE VF Add(const Pair& x, const Pair& w, VF sum) {
    return hn::MulAdd(x.odd, w.odd, hn::MulAdd(x.even, w.even, sum));
  }
};

// The same words for processors that multiply bf16 (the caller checks: AVX512-BF16).
struct NativeDotStep {
  static constexpr int64_t kVectors = 2;
  static constexpr int kWideColumns = 3;
  using XVec = hn::Vec<WordTag>;
  using WVec = hn::Vec<WordTag>;
  static HWY_INLINE XVec LoadX(const BF16* x, Whole) {
    return hn::LoadU(WordTag(), reinterpret_cast<const uint32_t*>(x));
  }
  static HWY_INLINE XVec LoadX(const BF16* x, Part part) {
    HWY_ALIGN BF16 room[2 * HWY_MAX_BYTES / sizeof(float)] = {};
    for (int64_t i = 0; i < part.n; ++i) room[i] = x[i];
    return LoadX(room, Whole());
  }
  template <class P>
  static HWY_INLINE WVec LoadW(const BF16* w, P part) {
    return LoadX(w, part);
  }
  static HWY_INLINE VF Add(XVec x, WVec w, VF sum) {
#if HWY_TARGET == HWY_AVX3
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(x.raw), "v"(w.raw));
    return sum;
#else
    using Step = DotStep<BF16, BF16>;
    return Step::Add(Step::Split(x), Step::Split(w), sum);
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

// dots[r * kCols + c] = x row r · w row c, both of k elements. Every dot is one vector of partial sums over
// ascending k, then the same tree over its lanes, whatever kRows and kCols are.
template <class Step, int kRows, int kCols, typename X, typename W>
HWY_NOINLINE void DotTile(int64_t k, const X* HWY_RESTRICT x, int64_t ldx, const W* HWY_RESTRICT w,
                          int64_t ldw, float* dots) {
  VF sums[kRows * kCols];
#pragma GCC unroll 16
  for (int i = 0; i < kRows * kCols; ++i) sums[i] = Set(0);
  const auto step = [&](int64_t i, auto part) HWY_ATTR {
    typename Step::XVec values[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) values[r] = Step::LoadX(x + r * ldx + i, part);
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      const typename Step::WVec weight = Step::LoadW(w + c * ldw + i, part);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[r * kCols + c] = Step::Add(values[r], weight, sums[r * kCols + c]);
    }
  };
  const int64_t width = Step::kVectors * Lanes();
  int64_t i = 0;
  for (; i + width <= k; i += width) step(i, Whole());
  if (i < k) step(i, Part{k - i});
  const auto at = [&](int j) HWY_ATTR { return j < kRows * kCols ? sums[j] : Set(0); };
#pragma GCC unroll 4
  for (int j = 0; j < kRows * kCols; j += 4) SumFour(at(j), at(j + 1), at(j + 2), at(j + 3), dots + j);
}

// store(r, c, dot) for m rows of x and kCols rows of w.
template <class Step, int kCols, typename X, typename W, typename StoreDot>
HWY_INLINE void DotColumns(int64_t m, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                           const StoreDot& store) {
  const auto strip = [&](auto rows, int64_t r) HWY_ATTR {
    constexpr int kRows = decltype(rows)::value;
    float dots[(kRows * kCols + 3) / 4 * 4];
    DotTile<Step, kRows, kCols>(k, x + r * ldx, ldx, w, ldw, dots);
    for (int i = 0; i < kRows; ++i) {
      for (int c = 0; c < kCols; ++c) store(r + i, c, dots[i * kCols + c]);
    }
  };
  int64_t r = 0;
  if constexpr (kCols < 4) {
    for (; r + 4 <= m; r += 4) strip(std::integral_constant<int, 4>(), r);
  }
  if constexpr (kCols < 4) {
    if (r + 3 == m) return strip(std::integral_constant<int, 3>(), r);
  }
  if constexpr (kCols < 8) {
    for (; r + 2 <= m; r += 2) strip(std::integral_constant<int, 2>(), r);
  }
  for (; r < m; ++r) strip(std::integral_constant<int, 1>(), r);
}

// store(r, c, dot) for m rows of x and n rows of w; w is read once. Columns that are made together lie far
// apart: each is then a long stream of its own that the processor's prefetchers follow (twice the bandwidth
// of neighbouring rows, which end before a prefetcher has caught up).
template <class Step, typename X, typename W, typename StoreDot>
HWY_INLINE void DotBlock(int64_t m, int64_t n, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                         const StoreDot& store) {
  const auto columns = [&](auto streams, int64_t begin, int64_t end) HWY_ATTR {
    constexpr int kStreams = decltype(streams)::value;
    const int64_t apart = (end - begin) / kStreams;
    for (int64_t c = begin; c < begin + apart; ++c) {
      DotColumns<Step, kStreams>(m, k, x, ldx, w + c * ldw, apart * ldw,
                                 [&](int64_t r, int64_t i, float dot) { store(r, c + i * apart, dot); });
    }
    return begin + kStreams * apart;
  };
  // One row or two (a token and its draft) have registers for more columns.
  const int64_t done = m <= 2 ? columns(std::integral_constant<int, 4>(), 0, n)
                              : columns(std::integral_constant<int, Step::kWideColumns>(), 0, n);
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
