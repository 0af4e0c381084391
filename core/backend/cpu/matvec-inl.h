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
  static constexpr int kHalves = 1;
  using Vec = VF;
  template <int, typename T, class P>
  static HWY_INLINE VF LoadHalf(const T* p, P part) {
    return HWY_NAMESPACE::Load(p, part);
  }
  static HWY_INLINE VF Add(VF x, VF w, VF sum) { return hn::MulAdd(x, w, sum); }
};

// w is bf16, read by words of two neighbours: the even elements of a step are widened by a shift, then the
// odd ones by a mask, half the work of widening them in their order. x is bf16, or fp32 in that order
// (WidenEvenOdd).
struct EvenOddStep {
  static constexpr int64_t kVectors = 2;
  static constexpr int kHalves = 2;
  using Vec = VF;
  template <int kHalf, class P>
  static HWY_INLINE VF LoadHalf(const float* p, P) {
    return HWY_NAMESPACE::Load(p + kHalf * Lanes());
  }
  template <int kHalf>
  static HWY_INLINE VF LoadHalf(const BF16* p, Whole) {
#if HWY_TARGET == HWY_SCALAR
    return Set(p[kHalf].ToFloat());
#else
    const auto words = hn::LoadU(WordTag(), reinterpret_cast<const uint32_t*>(p));
    return hn::BitCast(
        F32(), kHalf == 0 ? hn::ShiftLeft<16>(words) : hn::And(words, hn::Set(WordTag(), 0xFFFF0000u)));
#endif
  }
  template <int kHalf>
  static HWY_INLINE VF LoadHalf(const BF16* p, Part part) {
    HWY_ALIGN BF16 room[2 * HWY_MAX_BYTES / sizeof(float)] = {};
    for (int64_t i = 0; i < part.n; ++i) room[i] = p[i];
    return LoadHalf<kHalf>(room, Whole());
  }
  static HWY_INLINE VF Add(VF x, VF w, VF sum) { return hn::MulAdd(x, w, sum); }
};

// Of bf16, for processors that multiply it (the caller checks: AVX512-BF16): neighbours in a 32-bit word are
// multiplied and added to its lane.
struct NativeDotStep {
  static constexpr int64_t kVectors = 2;
  static constexpr int kHalves = 1;
  using Vec = hn::Vec<WordTag>;
  template <int>
  static HWY_INLINE Vec LoadHalf(const BF16* p, Whole) {
    return hn::LoadU(WordTag(), reinterpret_cast<const uint32_t*>(p));
  }
  template <int>
  static HWY_INLINE Vec LoadHalf(const BF16* p, Part part) {
    HWY_ALIGN BF16 room[2 * HWY_MAX_BYTES / sizeof(float)] = {};
    for (int64_t i = 0; i < part.n; ++i) room[i] = p[i];
    return LoadHalf<0>(room, Whole());
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

template <int kValue>
using Int = std::integral_constant<int, kValue>;

// Else the compiler, short of registers, reads a value again for every column: twice the loads.
template <class V>
HWY_INLINE void KeepInRegister([[maybe_unused]] V& v) {
#if HWY_TARGET != HWY_SCALAR && HWY_ARCH_X86
  asm("" : "+v"(v.raw));
#endif
}

template <int kRows, int kCols>
inline constexpr int kSumsOf = (kRows * kCols + 3) / 4 * 4;  // whole fours

// One half of a step of a tile; w's rows lie ldw apart. The fewer of rows and columns are kept in registers,
// the others pass.
template <class Step, int kHalf, int kRows, int kCols, typename X, typename W, class P>
HWY_INLINE void AddHalf(const X* x, int64_t ldx, const W* w, int64_t ldw, P part,
                        VF (&sums)[kSumsOf<kRows, kCols>]) {
  if constexpr (kRows <= kCols) {
    typename Step::Vec values[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) values[r] = Step::template LoadHalf<kHalf>(x + r * ldx, part);
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      const auto weight = Step::template LoadHalf<kHalf>(w + c * ldw, part);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[r * kCols + c] = Step::Add(values[r], weight, sums[r * kCols + c]);
    }
  } else {
    typename Step::Vec weights[kCols];
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) weights[c] = Step::template LoadHalf<kHalf>(w + c * ldw, part);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      auto value = Step::template LoadHalf<kHalf>(x + r * ldx, part);
      if constexpr (kCols > 1) KeepInRegister(value);
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) sums[r * kCols + c] = Step::Add(value, weights[c], sums[r * kCols + c]);
    }
  }
}

template <class Step, int kRows, int kCols, typename X, typename W, class P>
HWY_INLINE void AddStep(const X* x, int64_t ldx, const W* w, const W* again, int64_t ldw, P part,
                        VF (&sums)[kSumsOf<kRows, kCols>]) {
  AddHalf<Step, 0, kRows, kCols>(x, ldx, w, ldw, part, sums);
  if constexpr (Step::kHalves == 2) AddHalf<Step, 1, kRows, kCols>(x, ldx, again, ldw, part, sums);
}

// dots[r * ldd + c * apart] = x row r · w row c * apart, both of k elements. Every dot is one vector of
// partial sums over ascending k, then the same tree over its lanes, whatever kRows and kCols are. kPrefetch
// asks for the next row of every stream of w on the way.
template <class Step, int kRows, int kCols, bool kPrefetch = false, typename X, typename W>
HWY_NOINLINE void DotTile(int64_t k, const X* HWY_RESTRICT x, int64_t ldx, const W* w, int64_t ldw,
                          int64_t apart, float* HWY_RESTRICT dots, int64_t ldd) {
  constexpr int kSums = kSumsOf<kRows, kCols>;
  VF sums[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sums[i] = Set(0);
  // Both halves of a step lie in the same words. The compiler must not know, or it keeps the words of the
  // first half for the second and lacks the registers for sums.
  const W* again = w;
  asm("" : "+r"(again));
  const int64_t width = Step::kVectors * Lanes(), stream = apart * ldw;
  int64_t i = 0;
  if constexpr (kPrefetch) {
    constexpr int64_t kLine = 64 / sizeof(W);
    for (; i + kLine <= k; i += kLine) {
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) hwy::Prefetch(w + c * stream + ldw + i);
      for (int64_t at = i; at < i + kLine; at += width)
        AddStep<Step, kRows, kCols>(x + at, ldx, w + at, again + at, stream, Whole(), sums);
    }
  }
  for (; i + width <= k; i += width)
    AddStep<Step, kRows, kCols>(x + i, ldx, w + i, again + i, stream, Whole(), sums);
  if (i < k) AddStep<Step, kRows, kCols>(x + i, ldx, w + i, again + i, stream, Part{k - i}, sums);
  float totals[kSums];
#pragma GCC unroll 8
  for (int j = 0; j < kSums; j += 4) SumFour(sums[j], sums[j + 1], sums[j + 2], sums[j + 3], totals + j);
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) dots[r * ldd + c * apart] = totals[r * kCols + c];
  }
}

// The same for `rows` rows, at most kMost. Three or more have arithmetic to hide a prefetch behind.
template <class Step, int kMost, int kCols, typename X, typename W>
HWY_INLINE void DotStrip(int64_t rows, bool prefetch, int64_t k, const X* x, int64_t ldx, const W* w,
                         int64_t ldw, int64_t apart, float* dots, int64_t ldd) {
  if (rows == kMost) {
    constexpr bool kPrefetch = kMost > 2;
    return kPrefetch && prefetch ? DotTile<Step, kMost, kCols, kPrefetch>(k, x, ldx, w, ldw, apart, dots, ldd)
                                 : DotTile<Step, kMost, kCols, false>(k, x, ldx, w, ldw, apart, dots, ldd);
  }
  if constexpr (kMost > 1) {
    DotStrip<Step, kMost - 1, kCols>(rows, prefetch, k, x, ldx, w, ldw, apart, dots, ldd);
  }
}

// The same for m rows of x, in like strips of at most kMost. The last one calls for the rows of w that come
// next.
template <class Step, int kMost, int kCols, typename X, typename W>
HWY_INLINE void DotColumns(int64_t m, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                           int64_t apart, float* dots, int64_t ldd) {
  const int64_t strips = (m + kMost - 1) / kMost;
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t r = m * s / strips, rows = m * (s + 1) / strips - r;
    DotStrip<Step, kMost, kCols>(rows, s + 1 == strips, k, x + r * ldx, ldx, w, ldw, apart, dots + r * ldd,
                                 ldd);
  }
}

// dots[r * ldd + c] = x row r · w row c for m rows of x and n rows of w; w is read once. Columns that are
// made together lie far apart: each is then a long stream of its own that the processor's prefetchers follow
// (twice the bandwidth of neighbouring rows, which end before a prefetcher has caught up).
template <class Step, typename X, typename W>
HWY_INLINE void DotBlock(int64_t m, int64_t n, int64_t k, const X* x, int64_t ldx, const W* w, int64_t ldw,
                         float* dots, int64_t ldd) {
  const auto columns = [&](auto most, auto streams) HWY_ATTR {
    constexpr int kMost = decltype(most)::value, kStreams = decltype(streams)::value;
    const int64_t apart = n / kStreams;
    for (int64_t c = 0; c < apart; ++c) {
      DotColumns<Step, kMost, kStreams>(m, k, x, ldx, w + c * ldw, ldw, apart, dots + c, ldd);
    }
    for (int64_t c = kStreams * apart; c < n; ++c) {
      DotColumns<Step, kMost, 1>(m, k, x, ldx, w + c * ldw, ldw, 1, dots + c, ldd);
    }
  };
  // Tiles of as many sums as registers hold beside weights and a value: of three columns, or of two where
  // that makes fewer strips, which the first-level cache must hold. One row or two (a token and its draft)
  // have room for more columns.
  constexpr bool kMany = hn::MaxLanes(F32()) >= 16;
  constexpr int kOfThree = kMany ? 8 : Step::kHalves == 1 ? 4 : 3, kOfTwo = kMany ? 12 : 6;
  const bool fits = kOfTwo * k * static_cast<int64_t>(sizeof(X)) <= 32 << 10;
  if (m <= 2) {
    columns(Int<2>(), Int<4>());
  } else if (!fits || (m + kOfThree - 1) / kOfThree == (m + kOfTwo - 1) / kOfTwo) {
    columns(Int<kOfThree>(), Int<3>());
  } else {
    columns(Int<kOfTwo>(), Int<2>());
  }
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
