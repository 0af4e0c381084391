// Tile products by AMX: the same operands in the same scratch as those of tile-inl.h, in blocks of 32 x 32.
// A's and B's reductions are padded to whole tiles of 32 elements: zeros in one, anything finite in the
// other. Included once per target.
#if defined(MOEBIUS_CORE_BACKEND_CPU_AMX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEBIUS_CORE_BACKEND_CPU_AMX_INL_H_
#undef MOEBIUS_CORE_BACKEND_CPU_AMX_INL_H_
#else
#define MOEBIUS_CORE_BACKEND_CPU_AMX_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "core/backend/cpu/amx.h"
#include "core/backend/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

inline constexpr int64_t kTileSide = 16;              // rows, and columns of C and B
inline constexpr int64_t kTileDepth = 2 * kTileSide;  // elements of the reduction
inline constexpr int64_t kTileBlock = 2 * kTileSide;  // rows and columns of C at once: four tiles
inline constexpr int64_t kWordBytes = sizeof(float);

// Sixteen rows of C for the tiles: C's own, or a copy where C has fewer.
class TileRows {
 public:
  TileRows(float* c, int64_t ldc, int64_t rows, int64_t columns, bool accumulate)
      : c_(c), ldc_(ldc), rows_(rows), columns_(columns) {
    if (!IsCopy() || !accumulate) return;
    for (int64_t r = 0; r < rows_; ++r)
      std::memcpy(copy_ + r * kTileBlock, c_ + r * ldc_, columns_ * kWordBytes);
  }
  void WriteBack() const {
    if (!IsCopy()) return;
    for (int64_t r = 0; r < rows_; ++r)
      std::memcpy(c_ + r * ldc_, copy_ + r * kTileBlock, columns_ * kWordBytes);
  }
  float* at(int64_t column) { return (IsCopy() ? copy_ : c_) + column; }
  int64_t stride() const { return (IsCopy() ? kTileBlock : ldc_) * kWordBytes; }

 private:
  bool IsCopy() const { return rows_ < kTileSide; }
  float* c_;
  int64_t ldc_, rows_, columns_;
  alignas(64) float copy_[kTileSide * kTileBlock];
};

// C's tiles are 0 to 3 (row by row), A's 4 and 5, B's 6 and 7. rows: of C, in (16 kM - 16, 16 kM]; units
// [begin, end).
template <int kM, int kN>
void TileBlock(const Tile<AmxPair>& t, int64_t row, int64_t column, int64_t rows, int64_t begin,
               int64_t end) {
  const auto b_at = [&](int64_t c) { return t.b + c / kPanel * t.b_panel + c % kPanel; };
  const AmxPair* b0 = b_at(column);
  const AmxPair* b1 = b_at(column + kTileSide);
  float* c = t.c + row * t.ldc + column;
  TileRows above(c, t.ldc, std::min(rows, kTileSide), kN * kTileSide, t.accumulate);
  TileRows below(c + kTileSide * t.ldc, t.ldc, rows - kTileSide, kN * kTileSide, t.accumulate);
  if (t.accumulate) {
    LoadTile<0>(above.at(0), above.stride());
    if constexpr (kN == 2) LoadTile<1>(above.at(kTileSide), above.stride());
    if constexpr (kM == 2) LoadTile<2>(below.at(0), below.stride());
    if constexpr (kM == 2 && kN == 2) LoadTile<3>(below.at(kTileSide), below.stride());
  } else {
    ZeroTile<0>();
    if constexpr (kN == 2) ZeroTile<1>();
    if constexpr (kM == 2) ZeroTile<2>();
    if constexpr (kM == 2 && kN == 2) ZeroTile<3>();
  }
  const int64_t a_stride = t.a_row * kWordBytes;
  const int64_t b_stride = t.ldb * kWordBytes;
  for (int64_t unit = begin; unit < end; unit += kTileSide) {
    const AmxPair* a = t.a + unit / kPanel * t.a_panel + unit % kPanel + row * t.a_row;
    LoadTile<6>(b0 + unit * t.ldb, b_stride);
    LoadTile<4>(a, a_stride);
    MultiplyTiles<0, 4, 6>();
    if constexpr (kN == 2) {
      LoadTile<7>(b1 + unit * t.ldb, b_stride);
      MultiplyTiles<1, 4, 7>();
    }
    if constexpr (kM == 2) {
      LoadTile<5>(a + kTileSide * t.a_row, a_stride);
      MultiplyTiles<2, 5, 6>();
      if constexpr (kN == 2) MultiplyTiles<3, 5, 7>();
    }
  }
  StoreTile<0>(above.at(0), above.stride());
  if constexpr (kN == 2) StoreTile<1>(above.at(kTileSide), above.stride());
  if constexpr (kM == 2) StoreTile<2>(below.at(0), below.stride());
  if constexpr (kM == 2 && kN == 2) StoreTile<3>(below.at(kTileSide), below.stride());
  above.WriteBack();
  if constexpr (kM == 2) below.WriteBack();
}

// As TileProduct of tile-inl.h. A is read along its rows (a_k == 1), in panels of kPanel units a_panel apart.
template <Bound kBound>
void TileProduct(const Tile<AmxPair>& t, int64_t diagonal = 0) {
  static_assert(kTileBlock == kPad);
  CHECK(kPanel % kTileSide == 0 && t.a_k == 1) << "tiles lie in panels of " << kPanel;
  const auto whole = [](int64_t elements) { return (elements + kTileDepth - 1) / kTileDepth * kTileSide; };
  const int64_t units = whole(t.k);
  for (int64_t column = 0; column < t.n; column += kTileBlock) {
    const bool two_columns = column + kTileSide < t.n;
    for (int64_t row = 0; row < t.m; row += kTileBlock) {
      const int64_t rows = std::min(kTileBlock, t.m - row);
      const int64_t last = row + rows - 1 + diagonal;  // the last key that a row of these sees
      int64_t begin = 0;
      int64_t end = units;
      if (kBound == Bound::kColumns && column > last) continue;
      if (kBound == Bound::kReduceTo) end = std::clamp<int64_t>(whole(last + 1), 0, units);
      if (kBound == Bound::kReduceFrom) {
        begin = std::clamp<int64_t>((row - diagonal) / kTileDepth * kTileSide, 0, units);
      }
      if (rows > kTileSide) {
        two_columns ? TileBlock<2, 2>(t, row, column, rows, begin, end)
                    : TileBlock<2, 1>(t, row, column, rows, begin, end);
      } else {
        two_columns ? TileBlock<1, 2>(t, row, column, rows, begin, end)
                    : TileBlock<1, 1>(t, row, column, rows, begin, end);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#endif  // MOEBIUS_CORE_BACKEND_CPU_AMX_INL_H_
