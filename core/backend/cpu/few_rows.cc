#include "core/backend/cpu/few_rows.h"

#include <algorithm>

#include "core/backend/cpu/matvec.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/few_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

// Rows of a bf16 weight that are widened together for all groups of rows, and how they lie.
#ifndef MOEBIUS_CORE_BACKEND_CPU_FEW_ROWS_CC_
#define MOEBIUS_CORE_BACKEND_CPU_FEW_ROWS_CC_
namespace moebius {
inline constexpr int64_t kWideColumns = 48;
inline int64_t WideStride(int64_t k) { return (k + 15) / 16 * 16 + 16; }  // off the powers of two
}  // namespace moebius
#endif

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
#pragma GCC unroll 24
    for (int c = 0; c < kColumns; ++c) {
      const VF weight = Set(w[c * ldw + i]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[c][v] = hn::MulAdd(rows[v], weight, sums[c][v]);
    }
  }
}

// Column c of `sums`, its rows in the lanes, goes to `rows` rows of column c * apart of y.
template <int kVectors, int kColumns, typename Y>
HWY_INLINE void PutColumns(VF (&sums)[kColumns][kVectors], int64_t rows, int64_t apart, Y* y,
                           int64_t stride) {
  HWY_ALIGN Y lanes[kColumns * kVectors * HWY_MAX_BYTES / sizeof(float)];
  const int64_t width = kVectors * Lanes();
#pragma GCC unroll 24
  for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) Store(sums[c][v], lanes + c * width + v * Lanes());
  }
  for (int64_t r = 0; r < rows; ++r, y += stride) {
#pragma GCC unroll 24
    for (int c = 0; c < kColumns; ++c) y[c * apart] = lanes[c * width + r];
  }
}

// kColumns columns of the result, `column` and others `apart` from each other, for `rows` rows from `row` on,
// whose panel of packed a is x.
template <int kVectors, int kColumns>
void Columns(const Product& p, const float* x, int64_t row, int64_t rows, int64_t column, int64_t apart) {
  HWY_ALIGN float totals[kColumns * kVectors * HWY_MAX_BYTES / sizeof(float)] = {};
  const auto each = [](const auto& body) HWY_ATTR {
#pragma GCC unroll 24
    for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) body(c, v, (c * kVectors + v) * Lanes());
    }
  };
  const float* w = static_cast<const float*>(p.b.data) + column * p.b.stride;
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
template <int kVectors, int kColumns>
void Group(const Product& p, const float* x, int64_t row, int64_t rows, int64_t begin, int64_t end) {
  const int64_t apart = (end - begin) / kColumns;
  for (int64_t c = begin; c < begin + apart; ++c) Columns<kVectors, kColumns>(p, x, row, rows, c, apart);
  if constexpr (kColumns > 1) {
    Group<kVectors, kColumns / 2>(p, x, row, rows, begin + kColumns * apart, end);
  }
}

// Columns [begin, end) for all rows; p.b is fp32.
void AllGroups(const Product& p, const float* packed, int64_t begin, int64_t end) {
  // As many sums as registers hold.
  constexpr bool kMany = hn::MaxLanes(F32()) >= 16;
  constexpr int kNarrow = kMany ? 24 : 8, kWide = kMany ? 12 : 6;
  for (int64_t row = 0; row < p.m; row += GroupRows()) {
    const int64_t rows = std::min(GroupRows(), p.m - row);
    const float* x = packed + row * p.k;
    if (rows <= Lanes()) {
      Group<1, kNarrow>(p, x, row, rows, begin, end);
    } else {
      Group<2, kWide>(p, x, row, rows, begin, end);
    }
  }
}

void Compute(const Product& p, const float* packed, int64_t begin, int64_t end, float* wide) {
  if (p.b.dtype == DType::kF32) return AllGroups(p, packed, begin, end);
  const int64_t stride = WideStride(p.k);
  for (int64_t column = begin; column < end; column += kWideColumns) {
    Product part = p.Columns(column, std::min(kWideColumns, end - column));
    const BF16* from = static_cast<const BF16*>(part.b.data);
    for (int64_t c = 0; c < part.n; ++c) Widen(from + c * p.b.stride, p.k, wide + c * stride);
    part.b = {.data = wide, .stride = stride, .transposed = true};
    AllGroups(part, packed, 0, part.n);
  }
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
int64_t FewRowsScratchBytes(const Product& p) {
  return p.b.dtype == DType::kF32 ? 0 : kWideColumns * WideStride(p.k) * SizeOf(DType::kF32);
}
void FewRowsCompute(const Product& p, const float* packed, int64_t begin, int64_t end, void* scratch) {
  HWY_DYNAMIC_DISPATCH(Compute)(p, packed, begin, end, static_cast<float*>(scratch));
}

}  // namespace moebius
#endif  // HWY_ONCE
