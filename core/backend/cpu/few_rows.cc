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

// Rows are taken in groups of two vectors: a panel of packed a, [k][GroupRows()].
HWY_INLINE int64_t GroupRows() { return 2 * Lanes(); }

// sums += one block of k: rows of x in the lanes of kVectors vectors, kColumns rows of w beside each other.
template <int kVectors, int kColumns>
HWY_INLINE void MultiplyBlock(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, int64_t ldw,
                              int64_t k, VF (&sums)[kColumns][kVectors]) {
#pragma GCC unroll 4
  for (int64_t i = 0; i < k; ++i, x += GroupRows()) {
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
  const int64_t lanes = Lanes(), width = GroupRows();
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

// Column c of `sums`, its rows in the lanes, goes to `rows` rows of column c * apart of y.
template <int kVectors, int kColumns, typename Y>
HWY_INLINE void PutColumns(VF (&sums)[kColumns][kVectors], int64_t rows, int64_t apart, Y* y,
                           int64_t stride) {
  HWY_ALIGN Y lanes[kColumns * kVectors * HWY_MAX_BYTES / sizeof(float)];
  const int64_t width = kVectors * Lanes();
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) Store(sums[c][v], lanes + c * width + v * Lanes());
  }
  for (int64_t r = 0; r < rows; ++r, y += stride) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) y[c * apart] = lanes[c * width + r];
  }
}

// kColumns columns of the result, `column` and others `apart` from each other, for `rows` rows from `row` on,
// whose panel of packed a is x.
template <int kVectors, int kColumns, typename W>
void Columns(const Product& p, const float* x, int64_t row, int64_t rows, int64_t column, int64_t apart) {
  HWY_ALIGN float totals[kColumns * kVectors * HWY_MAX_BYTES / sizeof(float)] = {};
  const auto each = [](const auto& body) HWY_ATTR {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) body(c, v, (c * kVectors + v) * Lanes());
    }
  };
  const W* w = static_cast<const W*>(p.b.data) + column * p.b.stride;
  VF sums[kColumns][kVectors];
  int64_t begin = 0;
  do {
    each([&](int c, int v, int64_t) HWY_ATTR { sums[c][v] = Set(0); });
    const int64_t end = std::min(begin + kGemmBlockK, p.k);
    MultiplyBlock<kVectors, kColumns>(x + begin * GroupRows(), w + begin, apart * p.b.stride, end - begin,
                                      sums);
    if (begin > 0)
      each([&](int c, int v, int64_t at) HWY_ATTR { sums[c][v] = hn::Add(Load(totals + at), sums[c][v]); });
    if (end < p.k) each([&](int c, int v, int64_t at) HWY_ATTR { StoreExact(sums[c][v], totals + at); });
    begin = end;
  } while (begin < p.k);
  if (p.c.bias != nullptr) {
    each([&](int c, int v, int64_t)
             HWY_ATTR { sums[c][v] = hn::Add(sums[c][v], Set(p.c.bias[column + c * apart])); });
  }
  const int64_t at = row * p.c.stride + column;
  if (p.c.dtype == DType::kF32) {
    PutColumns<kVectors, kColumns>(sums, rows, apart, static_cast<float*>(p.c.data) + at, p.c.stride);
  } else {
    PutColumns<kVectors, kColumns>(sums, rows, apart, static_cast<BF16*>(p.c.data) + at, p.c.stride);
  }
}

// Columns [begin, end), kColumns at a time. Those that are made together lie far apart: each is a long stream
// that the processor's prefetchers follow (see DotBlock in matvec-inl.h).
template <int kVectors, int kColumns, typename W>
void Group(const Product& p, const float* x, int64_t row, int64_t rows, int64_t begin, int64_t end) {
  const int64_t apart = (end - begin) / kColumns;
  for (int64_t c = begin; c < begin + apart; ++c) Columns<kVectors, kColumns, W>(p, x, row, rows, c, apart);
  if constexpr (kColumns > 1) {
    Group<kVectors, kColumns / 2, W>(p, x, row, rows, begin + kColumns * apart, end);
  }
}

template <typename W>
void ComputeOf(const Product& p, const float* packed, int64_t begin, int64_t end) {
  constexpr int kNarrow = 8, kWide = std::is_same_v<W, float> ? 6 : 5;  // as many sums as registers hold
  for (int64_t row = 0; row < p.m; row += GroupRows()) {
    const int64_t rows = std::min(GroupRows(), p.m - row);
    const float* x = packed + row * p.k;
    if (rows <= Lanes()) {
      Group<1, kNarrow, W>(p, x, row, rows, begin, end);
    } else {
      Group<2, kWide, W>(p, x, row, rows, begin, end);
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

HWY_EXPORT(Compute);

bool IsFewRows(const Product& p) {
  return p.m <= kFewRows && p.k > 0 && !p.a.transposed && p.b.transposed && !p.c.accumulate;
}
void FewRowsCompute(const Product& p, const float* packed, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(Compute)(p, packed, begin, end);
}

}  // namespace moebius
#endif  // HWY_ONCE
