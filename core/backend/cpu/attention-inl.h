// Rows of attention's operands brought into the forms of tile products. Included once per target.
#if defined(MOEBIUS_CORE_BACKEND_CPU_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_BACKEND_CPU_ATTENTION_INL_H_
#undef MOEBIUS_CORE_BACKEND_CPU_ATTENTION_INL_H_
#else
#define MOEBIUS_CORE_BACKEND_CPU_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "core/backend/cpu/amx-inl.h"
#include "core/backend/cpu/attention.h"
#include "core/backend/cpu/pack.h"
#include "core/backend/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

inline constexpr int64_t kKeyBlock = 256;
inline constexpr int64_t kScoreStride =
    kKeyBlock + 16;  // not a multiple of 1 KiB: columns would share cache sets

template <class Unit>
inline constexpr bool kAmx = std::is_same_v<Unit, AmxPair>;

// Queries of a tile product.
template <class Unit>
inline constexpr int64_t kQueries = kAmx<Unit> ? 64 : kQueryBlock;
// Beyond the last key that a row sees, tile products still read this many elements, as zeros: of rows of the
// same strip or block that see more keys, and to the end of a step of the reduction.
template <class Unit>
inline constexpr int64_t kZeros = kAmx<Unit> ? kTileBlock + kTileDepth : kStrip + 2;

HWY_INLINE void ConvertRow(const float* from, float* to, int64_t n) {
  std::memcpy(to, from, n * sizeof(float));
}
HWY_INLINE void ConvertRow(const BF16* from, BF16* to, int64_t n) { std::memcpy(to, from, n * sizeof(BF16)); }
template <typename From, typename To>
HWY_INLINE void ConvertRow(const From* from, To* to, int64_t n) {
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR { Store(Load(from + i, part), to + i, part); });
}

// out rows [0, count) (row distance ld elements), columns [column, column + cols) = rows first, first + step,
// ...
template <class Unit>
void CopyRows(const RowsOf& x, int64_t first, int64_t step, int64_t count, int64_t cols, Unit* out,
              int64_t ld, int64_t column = 0) {
  for (int64_t r = 0; r < count; ++r) {
    const int64_t at = (first + r * step) * x.stride;
    if constexpr (kElements<Unit> == 2) {
      ConvertRow(static_cast<const BF16*>(x.data) + at, reinterpret_cast<BF16*>(out) + r * ld + column, cols);
    } else if (x.dtype == DType::kF32) {
      ConvertRow(static_cast<const float*>(x.data) + at, out + r * ld + column, cols);
    } else {
      ConvertRow(static_cast<const BF16*>(x.data) + at, out + r * ld + column, cols);
    }
  }
}

// Rows of a reduction over rows: `count` and what is to be zeros after them.
template <class Unit>
int64_t WholeSteps(int64_t count) {
  constexpr int64_t kStep = kAmx<Unit> ? kTileDepth : kElements<Unit>;
  return (count + kStep - 1) / kStep * kStep;
}

// Zeroes columns [cols, ld), and the rows that a reduction along them reads after the last.
template <class Unit>
void PadRows(Unit* out, int64_t count, int64_t cols, int64_t ld) {
  const int64_t size = sizeof(Unit) / kElements<Unit>;
  char* base = reinterpret_cast<char*>(out);
  if (cols < ld) {
    for (int64_t r = 0; r < count; ++r) std::memset(base + (r * ld + cols) * size, 0, (ld - cols) * size);
  }
  std::memset(base + count * ld * size, 0, (WholeSteps<Unit>(count) - count) * ld * size);
}

// The B form for a reduction over the rows of x [count, ld elements]: fp32 rows serve as they lie, so `out`
// is x; of bf16 two rows are interleaved. Row distance of the result: ld units.
inline void PairRows(const float* x, int64_t, int64_t, float* out) { CHECK(out == x); }
template <class Unit>
void PairRows(const Unit* x, int64_t num_rows, int64_t ld, Unit* out) {
  const int64_t count = WholeSteps<Unit>(num_rows);
  const uint16_t* rows = reinterpret_cast<const uint16_t*>(x);
  for (int64_t r = 0; r < count; r += 2) {
    const uint16_t* low = rows + r * ld;
    const uint16_t* high = low + ld;
    uint32_t* to = &out[r / 2 * ld].bits;
    const WordTag dw;
    for (int64_t c = 0; c < ld; c += kLanes) {
      const auto l = hn::PromoteTo(dw, hn::LoadU(HalfWidthTag(), low + c));
      const auto h = hn::PromoteTo(dw, hn::LoadU(HalfWidthTag(), high + c));
      hn::StoreU(hn::Or(l, hn::ShiftLeft<16>(h)), dw, to + c);
    }
  }
}
// Scratch for the paired form of `rows`.
template <class Unit>
Unit* TakePaired(Carver& carver, Unit* rows, int64_t elements) {
  return kElements<Unit> == 1 ? rows : carver.Take<Unit>(elements / 2);
}

// Keys [first, first + count) of the group, k and k_shared side by side, [count, ld].
template <class Unit>
void CopyKeys(const AttentionProblem& p, int64_t first_token, int64_t count, int64_t group, Unit* out,
              int64_t ld) {
  CopyRows(p.k, first_token * p.groups + group, p.groups, count, p.dk, out, ld);
  if (p.dr > 0) CopyRows(p.k_shared, first_token, 1, count, p.dr, out, ld, p.dk);
  PadRows(out, count, p.d(), ld);
}

// Rounds to bf16 in the processor where pairs are multiplied by it.
HWY_INLINE hn::Vec<HalfWidthTag> RoundToBF16(VF v) {
#if HWY_TARGET == HWY_AVX3
  hn::Vec<HalfWidthTag> out;
  asm("vcvtneps2bf16 %1, %0" : "=v"(out.raw) : "v"(v.raw));
  return out;
#else
  HWY_ALIGN BF16 lanes[kLanes];
  Store(v, lanes);
  return hn::LoadU(HalfWidthTag(), reinterpret_cast<const uint16_t*>(lanes));
#endif
}

// Units of a reduction over `elements`, which are padded with zeros to Padded(elements).
template <class Unit>
int64_t UnitsOf(int64_t elements) {
  return WholeSteps<Unit>(elements) / kElements<Unit>;
}

// body(a value of the unit's type).
template <class Body>
HWY_INLINE void WithUnit(UnitKind unit, const Body& body) {
  switch (unit) {
    case UnitKind::kFloat:
      return body(float());
    case UnitKind::kBF16Pair:
      return body(BF16Pair());
    case UnitKind::kAmxPair: {
      const TilesInUse tiles;
      return body(AmxPair());
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#endif  // MOEBIUS_CORE_BACKEND_CPU_ATTENTION_INL_H_
