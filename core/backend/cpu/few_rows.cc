#include "core/backend/cpu/few_rows.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/few_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

// Rows are taken in groups of up to kMostVectors vectors; packed a is [groups][k][vectors of the group].
constexpr int kMostVectors = 2;
HWY_INLINE int64_t GroupRows() { return kMostVectors * Lanes(); }
HWY_INLINE int64_t VectorsOf(int64_t rows) { return (rows + Lanes() - 1) / Lanes(); }

int64_t PackedBytes(int64_t m, int64_t k) { return (m / GroupRows() + 1) * GroupRows() * k * sizeof(float); }

HWY_INLINE float Widen(float x) { return x; }
HWY_INLINE float Widen(BF16 x) { return x.ToFloat(); }

template <typename X>
void PackOf(const Product& p, int64_t begin, int64_t end, float* packed) {
  const X* x = static_cast<const X*>(p.a.data);
  for (int64_t row = 0; row < p.m; row += GroupRows()) {
    const int64_t rows = std::min(GroupRows(), p.m - row), width = VectorsOf(rows) * Lanes();
    float* group = packed + row * p.k;
    if (rows < width) std::memset(group + begin * width, 0, (end - begin) * width * sizeof(float));
    for (int64_t r = 0; r < rows; ++r) {
      const X* from = x + (row + r) * p.a.stride;
      for (int64_t i = begin; i < end; ++i) group[i * width + r] = Widen(from[i]);
    }
  }
}

void Pack(const Product& p, int64_t begin, int64_t end, float* packed) {
  p.a.dtype == DType::kF32 ? PackOf<float>(p, begin, end, packed) : PackOf<BF16>(p, begin, end, packed);
}

// sums += one block of k: rows of x in lanes, kColumns rows of w beside each other.
template <int kVectors, int kColumns>
HWY_INLINE void MultiplyBlock(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, int64_t ldw,
                              int64_t k, VF (&sums)[kColumns][kVectors]) {
  const int64_t width = kVectors * Lanes();
  for (int64_t i = 0; i < k; ++i, x += width) {
    VF rows[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) rows[v] = hn::Load(F32(), x + v * Lanes());
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      const VF weight = Set(w[c * ldw + i]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[c][v] = hn::MulAdd(rows[v], weight, sums[c][v]);
    }
  }
}

// Two steps of k are one word of w, widened after it has been spread over the lanes.
template <int kVectors, int kColumns>
HWY_INLINE void MultiplyBlock(const float* HWY_RESTRICT x, const BF16* HWY_RESTRICT w, int64_t ldw, int64_t k,
                              VF (&sums)[kColumns][kVectors]) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const int64_t lanes = Lanes(), width = kVectors * lanes;
  int64_t i = 0;
  for (; i + 2 <= k; i += 2, x += 2 * width) {
    VF first[kVectors], second[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      first[v] = hn::Load(d, x + v * lanes);
      second[v] = hn::Load(d, x + width + v * lanes);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      uint32_t word;
      std::memcpy(&word, w + c * ldw + i, sizeof(word));
      const auto pair = hn::Set(du, word);
      const VF low = hn::BitCast(d, hn::ShiftLeft<16>(pair));
      const VF high = hn::BitCast(d, hn::And(pair, hn::Set(du, 0xFFFF0000u)));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sums[c][v] = hn::MulAdd(second[v], high, hn::MulAdd(first[v], low, sums[c][v]));
      }
    }
  }
  if (i == k) return;
  for (int c = 0; c < kColumns; ++c) {
    const VF weight = Set(w[c * ldw + i].ToFloat());
    for (int v = 0; v < kVectors; ++v) {
      sums[c][v] = hn::MulAdd(hn::Load(d, x + v * lanes), weight, sums[c][v]);
    }
  }
}

HWY_INLINE void PutElement(const GemmResult& c, int64_t row, int64_t column, float sum) {
  const int64_t at = row * c.stride + column;
  if (c.bias != nullptr) sum += c.bias[column];
  if (c.dtype == DType::kF32) {
    static_cast<float*>(c.data)[at] = sum;
  } else {
    static_cast<BF16*>(c.data)[at] = BF16::FromFloat(sum);
  }
}

// kColumns columns of the result, from `column` on, for the `rows` rows of a group that starts at `row`.
template <int kVectors, int kColumns, typename W>
void Columns(const Product& p, const float* x, int64_t row, int64_t rows, int64_t column) {
  constexpr int64_t kMostLanes = HWY_MAX_BYTES / sizeof(float);
  HWY_ALIGN float totals[kColumns * kVectors * kMostLanes] = {};
  const int64_t lanes = Lanes(), width = kVectors * lanes;
  const W* w = static_cast<const W*>(p.b.data) + column * p.b.stride;
  for (int64_t begin = 0; begin < p.k; begin += kGemmBlockK) {
    VF sums[kColumns][kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[c][v] = Set(0);
    }
    MultiplyBlock<kVectors, kColumns>(x + begin * width, w + begin, p.b.stride,
                                      std::min(kGemmBlockK, p.k - begin), sums);
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        float* total = totals + c * width + v * lanes;
        StoreExact(begin == 0 ? sums[c][v] : hn::Add(Load(total), sums[c][v]), total);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      PutElement(p.c, row + r, column + c, totals[c * width + r]);
    }
  }
}

template <int kVectors, typename W>
void Group(const Product& p, const float* x, int64_t row, int64_t rows, int64_t begin, int64_t end) {
  // As many sums as registers hold.
  constexpr int kColumns = kVectors == 1 ? 8 : std::is_same_v<W, float> ? 6 : 5;
  int64_t column = begin;
  for (; column + kColumns <= end; column += kColumns)
    Columns<kVectors, kColumns, W>(p, x, row, rows, column);
  constexpr int kRest = kColumns > 4 ? 4 : 2;
  for (; column + kRest <= end; column += kRest) Columns<kVectors, kRest, W>(p, x, row, rows, column);
  for (; column < end; ++column) Columns<kVectors, 1, W>(p, x, row, rows, column);
}

template <typename W>
void ComputeOf(const Product& p, const float* packed, int64_t begin, int64_t end) {
  for (int64_t row = 0; row < p.m; row += GroupRows()) {
    const int64_t rows = std::min(GroupRows(), p.m - row), vectors = VectorsOf(rows);
    const float* x = packed + row * p.k;
    if (vectors == 1) {
      Group<1, W>(p, x, row, rows, begin, end);
    } else {
      Group<2, W>(p, x, row, rows, begin, end);
    }
  }
}

void Compute(const Product& p, const float* packed, int64_t begin, int64_t end) {
  p.b.dtype == DType::kF32 ? ComputeOf<float>(p, packed, begin, end) : ComputeOf<BF16>(p, packed, begin, end);
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(PackedBytes);
HWY_EXPORT(Pack);
HWY_EXPORT(Compute);

bool IsFewRows(const Product& p) {
  return p.m <= kFewRows && p.k > 0 && !p.a.transposed && p.b.transposed && !p.c.accumulate;
}
int64_t FewRowsPackedBytes(int64_t m, int64_t k) { return HWY_DYNAMIC_DISPATCH(PackedBytes)(m, k); }
void FewRowsPack(const Product& p, int64_t begin, int64_t end, float* packed) {
  HWY_DYNAMIC_DISPATCH(Pack)(p, begin, end, packed);
}
void FewRowsCompute(const Product& p, const float* packed, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(Compute)(p, packed, begin, end);
}

}  // namespace moebius
#endif  // HWY_ONCE
