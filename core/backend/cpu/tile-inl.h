// Small dense products inside one task: C [m, n] fp32 (= or +=) A [m, k] · B [k, n], all in thread scratch.
// Attention uses these rather than oneDNN because its B panels are packed once and used by many tiles, its
// tiles are bounded by a causal diagonal, and oneDNN would repack per call. Not for whole matrices.
//
// The reduction runs over 32-bit units: one fp32, or (Unit = BF16Pair) two bf16 that follow each other in the
// reduction. B is read in panels of kPanel columns; C's rows must have room for whole panels.
#if defined(MOEBIUS_CORE_BACKEND_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_BACKEND_CPU_TILE_INL_H_
#undef MOEBIUS_CORE_BACKEND_CPU_TILE_INL_H_
#else
#define MOEBIUS_CORE_BACKEND_CPU_TILE_INL_H_
#endif

#include <algorithm>

#include "core/backend/cpu/pack.h"
#include "core/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

using WordTag = hn::RebindToUnsigned<F32>;
using HalfWidthTag = hn::Rebind<uint16_t, F32>;         // as many 16-bit lanes as F32 has lanes
inline constexpr int64_t kLanes = hn::MaxLanes(F32());  // exact on every target that we compile for
inline constexpr int64_t kPanel = 2 * kLanes;
inline constexpr int kStrip = kLanes >= 16 ? 12 : 6;  // rows of C held in registers: 2 vectors each

HWY_INLINE VF MulAddUnit(const float* a, VF b, VF sum) { return hn::MulAdd(hn::Set(F32(), *a), b, sum); }
// Two products of bf16 a lane, summed in fp32. In code for processors without AVX-512 this is the same
// arithmetic by shifts: slower than fp32 units, and there for tests of the layout.
HWY_INLINE VF MulAddUnit(const BF16Pair* a, hn::Vec<WordTag> b, VF sum) {
#if HWY_TARGET == HWY_AVX3
  // Highway 1.0.3 has no AVX512-BF16 target, so the instruction is written out; callers check for it.
  asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum.raw) : "v"(b.raw), "m"(*a));
  return sum;
#else
  const WordTag dw;
  const F32 d;
  const auto va = hn::Set(dw, a->bits);
  const auto high = hn::Set(dw, 0xFFFF0000u);
  sum = hn::MulAdd(hn::BitCast(d, hn::And(va, high)), hn::BitCast(d, hn::And(b, high)), sum);
  return hn::MulAdd(hn::BitCast(d, hn::ShiftLeft<16>(va)), hn::BitCast(d, hn::ShiftLeft<16>(b)), sum);
#endif
}

HWY_INLINE VF LoadUnits(const float* p) { return hn::LoadU(F32(), p); }
HWY_INLINE hn::Vec<WordTag> LoadUnits(const BF16Pair* p) { return hn::LoadU(WordTag(), &p->bits); }

// Rows of C against one panel; k in units.
template <int kRows, class Unit>
HWY_INLINE void TileStrip(int64_t k, const Unit* HWY_RESTRICT a, int64_t a_row, int64_t a_k,
                          const Unit* HWY_RESTRICT b, int64_t ldb, float* HWY_RESTRICT c, int64_t ldc,
                          bool accumulate) {
  const F32 d;
  VF sum0[kRows], sum1[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) sum0[r] = sum1[r] = hn::Zero(d);
  for (int64_t i = 0; i < k; ++i) {
    const auto b0 = LoadUnits(b);
    const auto b1 = LoadUnits(b + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      sum0[r] = MulAddUnit(a + r * a_row, b0, sum0[r]);
      sum1[r] = MulAddUnit(a + r * a_row, b1, sum1[r]);
    }
    a += a_k;
    b += ldb;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    float* row = c + r * ldc;
    if (accumulate) {
      sum0[r] = hn::Add(hn::LoadU(d, row), sum0[r]);
      sum1[r] = hn::Add(hn::LoadU(d, row + kLanes), sum1[r]);
    }
    hn::StoreU(sum0[r], d, row);
    hn::StoreU(sum1[r], d, row + kLanes);
  }
}

template <class Unit>
HWY_NOINLINE void TileTail(int rows, int64_t k, const Unit* a, int64_t a_row, int64_t a_k, const Unit* b,
                           int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  while (rows > 0) {
    const int step = rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
    if (step == 4) {
      TileStrip<4>(k, a, a_row, a_k, b, ldb, c, ldc, accumulate);
    } else if (step == 2) {
      TileStrip<2>(k, a, a_row, a_k, b, ldb, c, ldc, accumulate);
    } else {
      TileStrip<1>(k, a, a_row, a_k, b, ldb, c, ldc, accumulate);
    }
    a += step * a_row;
    c += step * ldc;
    rows -= step;
  }
}

// Which part of a tile the causal diagonal leaves: row r of a query tile sees the keys c <= r + diagonal.
enum class Bound {
  kNone,
  kColumns,  // C is queries x keys: panels right of the diagonal are not computed (their C is left as it was)
  kReduceTo,    // C's rows are queries, the reduction runs over keys: stops at the diagonal
  kReduceFrom,  // C's rows are keys, the reduction runs over queries: starts at the diagonal
};

template <class Unit>
struct Tile {
  int64_t m;
  int64_t n;
  int64_t k;  // elements
  const Unit* a;
  int64_t a_row;  // units from row to row of C, and from one step of the reduction to the next
  int64_t a_k;
  const Unit* b;
  int64_t b_panel;  // units from panel to panel, and from one step of the reduction to the next
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool accumulate;
  int64_t a_panel = kPanel;  // AMX only: units from the kPanel columns of A that lie side by side to the next
};

template <Bound kBound, class Unit>
void TileProduct(const Tile<Unit>& t, int64_t diagonal = 0) {
  constexpr int64_t kPack = kElements<Unit>;
  const int64_t k_units = (t.k + kPack - 1) / kPack;
  for (int64_t column = 0; column < t.n; column += kPanel) {
    const Unit* b = t.b + column / kPanel * t.b_panel;
    for (int64_t row = 0; row < t.m; row += kStrip) {
      const int64_t rows = std::min<int64_t>(kStrip, t.m - row);
      int64_t begin = 0;
      int64_t end = k_units;
      if (kBound == Bound::kColumns && column > row + rows - 1 + diagonal) continue;
      if (kBound == Bound::kReduceTo) {
        end = std::clamp<int64_t>((row + rows + diagonal + kPack - 1) / kPack, 0, k_units);
      }
      if (kBound == Bound::kReduceFrom) begin = std::clamp<int64_t>((row - diagonal) / kPack, 0, k_units);
      const Unit* a = t.a + row * t.a_row + begin * t.a_k;
      float* c = t.c + row * t.ldc + column;
      if (rows == kStrip) {
        TileStrip<kStrip>(end - begin, a, t.a_row, t.a_k, b + begin * t.ldb, t.ldb, c, t.ldc, t.accumulate);
      } else {
        TileTail(static_cast<int>(rows), end - begin, a, t.a_row, t.a_k, b + begin * t.ldb, t.ldb, c, t.ldc,
                 t.accumulate);
      }
    }
  }
}

// panels [ceil(rows / kPanel)][units][kPanel] = transpose of x [rows, units] (row distance ld): the B form of
// a product whose columns are x's rows. Missing columns of the last panel are 0.
template <class Unit>
void PackTransposed(const Unit* x, int64_t rows, int64_t units, int64_t ld, Unit* panels) {
  for (int64_t row = 0; row < rows; row += kPanel, panels += units * kPanel) {
    const int64_t count = std::min(kPanel, rows - row);
    const Unit* from = x + row * ld;
    int64_t full = 0;  // columns and units done by 4 x 4 blocks
    int64_t full_units = 0;
#if HWY_TARGET != HWY_SCALAR
    const hn::FixedTag<uint32_t, 4> d;
    const hn::Repartition<uint64_t, decltype(d)> d2;
    full = count / 4 * 4;
    full_units = units / 4 * 4;
    for (int64_t c = 0; c < full; c += 4) {
      const uint32_t* p = reinterpret_cast<const uint32_t*>(from + c * ld);
      for (int64_t u = 0; u < full_units; u += 4) {
        const auto r0 = hn::LoadU(d, p + u);
        const auto r1 = hn::LoadU(d, p + ld + u);
        const auto r2 = hn::LoadU(d, p + 2 * ld + u);
        const auto r3 = hn::LoadU(d, p + 3 * ld + u);
        const auto a = hn::BitCast(d2, hn::InterleaveLower(d, r0, r1));  // 00 10 01 11
        const auto b = hn::BitCast(d2, hn::InterleaveLower(d, r2, r3));
        const auto e = hn::BitCast(d2, hn::InterleaveUpper(d, r0, r1));
        const auto f = hn::BitCast(d2, hn::InterleaveUpper(d, r2, r3));
        uint32_t* to = reinterpret_cast<uint32_t*>(panels + u * kPanel + c);
        hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, a, b)), d, to);
        hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, a, b)), d, to + kPanel);
        hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, e, f)), d, to + 2 * kPanel);
        hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, e, f)), d, to + 3 * kPanel);
      }
    }
#endif
    for (int64_t u = 0; u < units; ++u) {
      for (int64_t c = u < full_units ? full : 0; c < count; ++c) panels[u * kPanel + c] = from[c * ld + u];
      std::fill(panels + u * kPanel + count, panels + (u + 1) * kPanel, Unit{});
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#endif  // MOEBIUS_CORE_BACKEND_CPU_TILE_INL_H_
