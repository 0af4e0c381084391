#include "core/backend/cpu/amx_gemm.h"

#include <algorithm>
#include <cstring>

#include "core/backend/cpu/amx.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/amx_gemm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

// What the kernel and its callers agree upon.
#ifndef MOEBIUS_CORE_BACKEND_CPU_AMX_GEMM_CC_
#define MOEBIUS_CORE_BACKEND_CPU_AMX_GEMM_CC_
namespace moebius {

// A tile has 16 rows of 16 words. A word is two bf16 that follow each other in k.
inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileWords = kTileRows * kTileRows;
inline constexpr int64_t kTileBytes = kTileWords * sizeof(uint32_t);
inline constexpr int64_t kTileK = 2 * kTileRows;
// Rows of a, and columns of b, that are multiplied at once: two tiles of each, four of sums.
inline constexpr int64_t kStrip = 2 * kTileRows;
// Of k between passages of the sums through memory: a strip of b fills 32 KiB of the first-level cache.
inline constexpr int64_t kAmxBlockK = 512;

inline int64_t Tiles(int64_t n, int64_t size) { return (n + size - 1) / size; }
inline int64_t PackedWords(int64_t outer, int64_t k) {
  return Tiles(outer, kStrip) * Tiles(k, kTileK) * 2 * kTileWords;
}
// Whether sums wait in scratch between blocks of k, since the result cannot hold them.
inline bool SumsWait(const Product& p) { return p.c.dtype != DType::kF32 && p.k > kAmxBlockK; }

}  // namespace moebius
#endif

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

// ---- packing: strips of 32 rows of a (or columns of b), of each [k / 32][2] tiles. A tile of a has a row of
// a in a row, one of b a column of b in a column; zeros where there is nothing.

// Sixteen words, in a register where processors with AMX have them; elsewhere this code is for tests.
#if HWY_TARGET == HWY_AVX3
using Words = hn::Vec<hn::RebindToUnsigned<F32>>;
HWY_INLINE Words LoadWords(const uint16_t* p) {
  return hn::BitCast(hn::RebindToUnsigned<F32>(), hn::LoadU(hn::ScalableTag<uint16_t>(), p));
}
HWY_INLINE Words Paired(const uint16_t* low, const uint16_t* high) {
  const hn::RebindToUnsigned<F32> d;
  const hn::Rebind<uint16_t, F32> d16;
  return hn::Or(hn::PromoteTo(d, hn::LoadU(d16, low)),
                hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(d16, high))));
}
HWY_INLINE void StoreWords(Words words, uint32_t* p) { hn::Store(words, hn::RebindToUnsigned<F32>(), p); }

// rows[i] word j becomes rows[j] word i.
HWY_INLINE void Turn(Words (&rows)[kTileRows]) {
  const hn::RebindToUnsigned<F32> d;
  const hn::RepartitionToWide<decltype(d)> d64;
  // fours[g][j]: of rows 4 g to 4 g + 3 the words j, 4 + j, 8 + j and 12 + j, one of them in a block.
  Words fours[4][4];
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const Words* r = rows + 4 * g;
    const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r[0], r[1]));
    const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r[2], r[3]));
    const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r[0], r[1]));
    const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r[2], r[3]));
    fours[g][0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
    fours[g][1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
    fours[g][2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
    fours[g][3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const Words low01 = hn::ConcatLowerLower(d, fours[1][j], fours[0][j]);
    const Words low23 = hn::ConcatLowerLower(d, fours[3][j], fours[2][j]);
    const Words high01 = hn::ConcatUpperUpper(d, fours[1][j], fours[0][j]);
    const Words high23 = hn::ConcatUpperUpper(d, fours[3][j], fours[2][j]);
    // Blocks 0 and 2 of both, or 1 and 3: Highway 1.0.3 has no name for it.
    rows[j].raw = _mm512_shuffle_i32x4(low01.raw, low23.raw, 0x88);
    rows[4 + j].raw = _mm512_shuffle_i32x4(low01.raw, low23.raw, 0xDD);
    rows[8 + j].raw = _mm512_shuffle_i32x4(high01.raw, high23.raw, 0x88);
    rows[12 + j].raw = _mm512_shuffle_i32x4(high01.raw, high23.raw, 0xDD);
  }
}
#else
struct Words {
  uint32_t words[kTileRows];
};
Words LoadWords(const uint16_t* p) {
  Words out;
  std::memcpy(out.words, p, sizeof(out.words));
  return out;
}
Words Paired(const uint16_t* low, const uint16_t* high) {
  Words out;
  for (int i = 0; i < kTileRows; ++i) out.words[i] = low[i] | static_cast<uint32_t>(high[i]) << 16;
  return out;
}
void StoreWords(const Words& words, uint32_t* p) { std::memcpy(p, words.words, sizeof(words.words)); }
void Turn(Words (&rows)[kTileRows]) {
  for (int i = 0; i < kTileRows; ++i) {
    for (int j = 0; j < i; ++j) std::swap(rows[i].words[j], rows[j].words[i]);
  }
}
#endif

// An operand whose outer index is a's row or b's column: rows of k elements, or (by_k) k rows of them.
struct Source {
  const uint16_t* data;
  int64_t stride;
  bool by_k;

  const uint16_t* at(int64_t outer, int64_t k) const {
    return data + (by_k ? k * stride + outer : outer * stride + k);
  }
};

enum class Side { kA, kB };

// 16 of the outer index, 32 of k.
template <Side kSide, bool kByK>
HWY_INLINE void PackTile(const uint16_t* from, int64_t stride, uint32_t* tile) {
  Words rows[kTileRows];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
    rows[i] =
        kByK ? Paired(from + 2 * i * stride, from + (2 * i + 1) * stride) : LoadWords(from + i * stride);
  }
  if (kByK == (kSide == Side::kA)) Turn(rows);
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) StoreWords(rows[i], tile + i * kTileRows);
}

// The same at an edge, where there are fewer.
template <Side kSide, bool kByK>
HWY_NOINLINE void PackPart(const uint16_t* from, int64_t stride, int64_t outer, int64_t k, uint32_t* tile) {
  uint16_t room[kTileRows * kTileK] = {};
  constexpr int64_t kRow = kByK ? kTileRows : kTileK;
  for (int64_t r = 0; r < (kByK ? k : outer); ++r) {
    std::memcpy(room + r * kRow, from + r * stride, (kByK ? outer : k) * sizeof(uint16_t));
  }
  PackTile<kSide, kByK>(room, kRow, tile);
}

template <Side kSide, bool kByK>
void PackSource(const Source& x, int64_t outer, int64_t k, uint32_t* to) {
  for (int64_t o = 0; o < outer; o += kStrip) {
    for (int64_t i = 0; i < k; i += kTileK) {
      // Short pieces of long rows are read: the hardware does not see them coming.
      for (int64_t ahead = i + kTileK; kByK && ahead < std::min(i + 2 * kTileK, k); ++ahead) {
        __builtin_prefetch(x.at(o, ahead));
      }
      for (int64_t half = o; half < o + kStrip; half += kTileRows, to += kTileWords) {
        const int64_t rows = std::clamp<int64_t>(outer - half, 0, kTileRows), steps = std::min(kTileK, k - i);
        if (rows == kTileRows && steps == kTileK) {
          PackTile<kSide, kByK>(x.at(half, i), x.stride, to);
        } else if (rows > 0) {
          PackPart<kSide, kByK>(x.at(half, i), x.stride, rows, steps, to);
        } else {
          std::memset(to, 0, kTileBytes);
        }
      }
    }
  }
}

void PackB(const GemmOperand& b, int64_t k, int64_t n, uint32_t* to) {
  const Source x{static_cast<const uint16_t*>(b.data), b.stride, !b.transposed};
  x.by_k ? PackSource<Side::kB, true>(x, n, k, to) : PackSource<Side::kB, false>(x, n, k, to);
}
void PackA(const GemmOperand& a, int64_t m, int64_t k, uint32_t* to) {
  const Source x{static_cast<const uint16_t*>(a.data), a.stride, a.transposed};
  x.by_k ? PackSource<Side::kA, true>(x, m, k, to) : PackSource<Side::kA, false>(x, m, k, to);
}

// ---- the kernel: sums are tiles 0 to 3 (row by row), a's 4 and 5, b's 6 and 7.

// 32 x 32 sums in memory.
struct Sums {
  float* at = nullptr;
  int64_t stride = kStrip;

  template <class Body>
  HWY_INLINE void Each(const Body& body) const {
    const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
    float* below = at + kTileRows * stride;
    body(at, at + kTileRows, below, below + kTileRows, bytes);
  }
  void Load() const {
    Each([](float* c0, float* c1, float* c2, float* c3, int64_t bytes) {
      LoadTile<0>(c0, bytes), LoadTile<1>(c1, bytes), LoadTile<2>(c2, bytes), LoadTile<3>(c3, bytes);
    });
  }
  void Store() const {
    Each([](float* c0, float* c1, float* c2, float* c3, int64_t bytes) {
      StoreTile<0>(c0, bytes), StoreTile<1>(c1, bytes), StoreTile<2>(c2, bytes), StoreTile<3>(c3, bytes);
    });
  }
};

// A strip of a times one of b. The next strip of a comes nearer on the way.
HWY_INLINE void MultiplyStrips(const uint32_t* a, const uint32_t* b, int64_t tiles) {
  const int64_t next = tiles * 2 * kTileWords;
  for (int64_t i = 0; i < tiles; ++i, a += 2 * kTileWords, b += 2 * kTileWords) {
    LoadTile<4>(a, kTileBytes / kTileRows);
    LoadTile<6>(b, kTileBytes / kTileRows);
    MultiplyTiles<0, 4, 6>();
    LoadTile<7>(b + kTileWords, kTileBytes / kTileRows);
    MultiplyTiles<1, 4, 7>();
    LoadTile<5>(a + kTileWords, kTileBytes / kTileRows);
    MultiplyTiles<2, 5, 6>();
    MultiplyTiles<3, 5, 7>();
#pragma GCC unroll 32
    for (int64_t line = 0; line < 2 * kTileWords; line += kTileRows) __builtin_prefetch(a + next + line);
  }
}

// rows x columns of c (=, or += where `add`) the sums, + bias.
template <typename T>
HWY_NOINLINE void Finish(const float* sums, int64_t rows, int64_t columns, T* c, int64_t stride, bool add,
                         const float* bias) {
  for (int64_t r = 0; r < rows; ++r, sums += kStrip, c += stride) {
    Sweep(columns, [&](int64_t j, auto part) HWY_ATTR {
      VF sum = Load(sums + j, part);
      if (add) sum = hn::Add(Load(c + j, part), sum);
      if (bias != nullptr) sum = hn::Add(sum, Load(bias + j, part));
      Store(sum, c + j, part);
    });
  }
}

void Compute(const Product& p, const uint32_t* packed_b, uint32_t* scratch) {
  const TilesInUse tiles_in_use;
  uint32_t* const packed_a = scratch;
  float* const room = reinterpret_cast<float*>(packed_a + PackedWords(p.m, std::min(p.k, kAmxBlockK)));
  float* const waiting = room + kStrip * kStrip;
  const int64_t waiting_stride = Tiles(p.n, kStrip) * kStrip;
  const bool wide = p.c.dtype == DType::kF32, wait = SumsWait(p);
  const int64_t strip_of_b = PackedWords(1, p.k);
  for (int64_t begin = 0; begin < p.k; begin += kAmxBlockK) {
    const int64_t k = std::min(kAmxBlockK, p.k - begin), tiles = Tiles(k, kTileK);
    const bool first = begin == 0, last = begin + k == p.k;
    PackA(p.a.Columns(begin), p.m, k, packed_a);
    for (int64_t j = 0; j < p.n; j += kStrip) {
      const uint32_t* b = packed_b + j / kStrip * strip_of_b + begin / kTileK * 2 * kTileWords;
      const int64_t columns = std::min(kStrip, p.n - j);
      for (int64_t i = 0; i < p.m; i += kStrip) {
        const int64_t rows = std::min(kStrip, p.m - i), at = i * p.c.stride + j;
        const bool whole = rows == kStrip && columns == kStrip;
        // Where sums lie between blocks: in a whole fp32 result, or in scratch.
        Sums lie;
        if (wide && whole && p.c.bias == nullptr) lie = {static_cast<float*>(p.c.data) + at, p.c.stride};
        if (wait) lie = {waiting + i * waiting_stride + j, waiting_stride};
        const bool go_on = lie.at != nullptr && (!first || p.c.accumulate);
        if (go_on) {
          lie.Load();
        } else {
          ZeroTile<0>(), ZeroTile<1>(), ZeroTile<2>(), ZeroTile<3>();
        }
        MultiplyStrips(packed_a + i / kStrip * tiles * 2 * kTileWords, b, tiles);
        if (lie.at != nullptr && (wide || !last)) {
          lie.Store();
          continue;
        }
        Sums{room}.Store();
        const float* bias = last && p.c.bias != nullptr ? p.c.bias + j : nullptr;
        if (wide) {
          Finish(room, rows, columns, static_cast<float*>(p.c.data) + at, p.c.stride,
                 !first || p.c.accumulate, bias);
        } else {
          Finish(room, rows, columns, static_cast<BF16*>(p.c.data) + at, p.c.stride, false, bias);
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(PackB);
HWY_EXPORT(Compute);

int64_t AmxPackedBytes(int64_t k, int64_t n) {
  return PackedWords(n, k) * static_cast<int64_t>(sizeof(uint32_t));
}
void AmxPack(const GemmOperand& b, int64_t k, int64_t n, void* packed) {
  HWY_DYNAMIC_DISPATCH(PackB)(b, k, n, static_cast<uint32_t*>(packed));
}
int64_t AmxScratchBytes(const Product& p) {
  const int64_t waiting = SumsWait(p) ? Tiles(p.m, kStrip) * Tiles(p.n, kStrip) : 0;
  return (PackedWords(p.m, std::min(p.k, kAmxBlockK)) + (1 + waiting) * kStrip * kStrip) *
         static_cast<int64_t>(sizeof(uint32_t));
}
void AmxCompute(const Product& product, const void* packed_b, void* scratch) {
  HWY_DYNAMIC_DISPATCH(Compute)
  (product, static_cast<const uint32_t*>(packed_b), static_cast<uint32_t*>(scratch));
}

}  // namespace moebius
#endif  // HWY_ONCE
