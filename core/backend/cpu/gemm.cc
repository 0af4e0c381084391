#include "core/backend/cpu/gemm.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/gemm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

// The kernel holds a tile of kTileRows x 2 vectors in registers. A block of kGemmBlockK steps of one packed
// column panel (2 vectors wide) stays in the L1 cache while the tiles of a row panel pass.
constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 ? 12 : 6;
HWY_INLINE int64_t TileColumns() { return 2 * Lanes(); }

HWY_INLINE int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

int64_t PackedBytes(int64_t k, int64_t n) { return k * RoundUp(n, TileColumns()) * sizeof(float); }

// ---- packing b: panels of TileColumns() columns, each [k][TileColumns()], zeros beyond n.

// Short pieces of long rows are read: the hardware does not see them coming.
constexpr int64_t kAhead = 8;
template <typename T>
HWY_INLINE void PrefetchRow(const T* row, int64_t n) {
  for (int64_t i = 0; i < n; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + i);
}

// b is [k, n] by rows: pieces of rows are copied. `panels` whole panels side by side are read together.
template <typename T>
void PackRows(const T* b, int64_t stride, int64_t k, int64_t n, float* packed) {
  const int64_t width = TileColumns(), lanes = Lanes();
  const int64_t whole = n / width;
  for (int64_t first = 0; first < whole; first += 8) {
    const int64_t count = std::min<int64_t>(8, whole - first);
    for (int64_t i = 0; i < k; ++i) {
      const T* from = b + i * stride + first * width;
      if (i + kAhead < k) PrefetchRow(from + kAhead * stride, count * width);
      float* to = packed + (first * k + i) * width;
      for (int64_t p = 0; p < count; ++p, from += width, to += k * width) {
        Store(Load(from), to);
        Store(Load(from + lanes), to + lanes);
      }
    }
  }
  if (whole * width == n) return;
  const int64_t rest = n - whole * width;
  for (int64_t i = 0; i < k; ++i) {
    float* to = packed + (whole * k + i) * width;
    const T* from = b + i * stride + whole * width;
    Store(Set(0), to);
    Store(Set(0), to + lanes);
    Sweep(rest, [&](int64_t j, auto part) HWY_ATTR { Store(Load(from + j, part), to + j); });
  }
}

HWY_INLINE float Widen(float x) { return x; }
HWY_INLINE float Widen(BF16 x) { return x.ToFloat(); }

#if HWY_TARGET != HWY_SCALAR
using F32x4 = hn::FixedTag<float, 4>;
HWY_INLINE hn::Vec<F32x4> Load4(const float* p) { return hn::LoadU(F32x4(), p); }
HWY_INLINE hn::Vec<F32x4> Load4(const BF16* p) {
  const hn::FixedTag<uint32_t, 4> du;
  const auto bits = hn::LoadU(hn::FixedTag<uint16_t, 4>(), reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(F32x4(), hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

// to[i * width + q] = from[q * stride + i] for 4 x 4 elements, turned in registers.
template <typename T>
HWY_INLINE void Turn4x4(const T* from, int64_t stride, float* to, int64_t width) {
  const F32x4 d4;
  const hn::FixedTag<double, 2> d2;
  const auto r0 = Load4(from), r1 = Load4(from + stride);
  const auto r2 = Load4(from + 2 * stride), r3 = Load4(from + 3 * stride);
  const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d4, r0, r1));
  const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d4, r2, r3));
  const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d4, r0, r1));
  const auto high23 = hn::BitCast(d2, hn::InterleaveUpper(d4, r2, r3));
  hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, low01, low23)), d4, to);
  hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, low01, low23)), d4, to + width);
  hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, high01, high23)), d4, to + 2 * width);
  hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, high01, high23)), d4, to + 3 * width);
}
#endif

// b is [n, k] by rows (transposed). Steps of 16 in k: a cache line of each row is used up at once.
template <typename T>
void PackTransposed(const T* b, int64_t stride, int64_t k, int64_t n, float* packed) {
  const int64_t width = TileColumns();
  for (int64_t first = 0; first < n; first += width) {
    float* panel = packed + first * k;
    const int64_t columns = std::min(width, n - first);
    if (columns < width) std::memset(panel, 0, k * width * sizeof(float));
    for (int64_t begin = 0; begin < k; begin += 16) {
      const int64_t end = std::min(begin + 16, k);
      int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
      for (; j + 4 <= columns; j += 4) {
        const T* from = b + (first + j) * stride;
        int64_t i = begin;
        for (; i + 4 <= end; i += 4) Turn4x4(from + i, stride, panel + i * width + j, width);
        for (; i < end; ++i) {
          for (int64_t q = 0; q < 4; ++q) panel[i * width + j + q] = Widen(from[q * stride + i]);
        }
      }
#endif
      for (; j < columns; ++j) {
        for (int64_t i = begin; i < end; ++i) panel[i * width + j] = Widen(b[(first + j) * stride + i]);
      }
    }
  }
}

template <typename T>
void PackAny(const GemmOperand& b, int64_t k, int64_t n, float* packed) {
  const T* data = static_cast<const T*>(b.data);
  b.transposed ? PackTransposed(data, b.stride, k, n, packed) : PackRows(data, b.stride, k, n, packed);
}
void Pack(const GemmOperand& b, int64_t k, int64_t n, float* packed) {
  b.dtype == DType::kF32 ? PackAny<float>(b, k, n, packed) : PackAny<BF16>(b, k, n, packed);
}

// ---- a block of a: rows as they lie (kRows), rows copied kRowStride apart, a distance that the compiler
// knows (kCopiedRows), or tiles of [k][kTileRows] (kTiles) when a is transposed.

enum class BlockLayout { kRows, kCopiedRows, kTiles };

struct Block {
  const float* data;
  int64_t stride;  // between rows, or between tiles
};

constexpr int64_t kRowStride = kGemmBlockK + 16;  // off the powers of two, which share cache sets
constexpr int64_t kTileStride = kGemmBlockK * kTileRows + 16;

template <typename T>
Block WidenRows(const T* a, int64_t stride, int64_t m, int64_t k, float* to) {
  for (int64_t i = 0; i < m; ++i) {
    const T* from = a + i * stride;
    Sweep(k,
          [&](int64_t j, auto part) HWY_ATTR { Store(Load(from + j, part), to + i * kRowStride + j, part); });
  }
  return {to, kRowStride};
}

template <typename T>
Block TileRows(const T* a, int64_t stride, int64_t m, int64_t k, float* to) {
  // A vector is wider than a tile: what it writes too much, the next k overwrites, or the gap between tiles
  // takes.
  const int64_t lanes = Lanes();
  const int64_t by_vector = lanes >= kTileRows && m >= lanes ? (m - lanes) / kTileRows + 1 : 0;
  for (int64_t p = 0; p < k; ++p) {
    const T* from = a + p * stride;
    if (p + kAhead < k) PrefetchRow(from + kAhead * stride, m);
    float* tile = to + p * kTileRows;
    int64_t t = 0;
    for (; t < by_vector; ++t, tile += kTileStride) Store(Load(from + t * kTileRows), tile);
    for (int64_t i = t * kTileRows; i < m; i += kTileRows, tile += kTileStride) {
      for (int64_t r = 0; r < std::min<int64_t>(kTileRows, m - i); ++r) tile[r] = Widen(from[i + r]);
    }
  }
  return {to, kTileStride};
}

// ---- the kernel

// Where a tile's sums go: they start from `+=`'s target or from zero, and pass through fp32 between blocks of
// k.
struct TileTarget {
  const float* from = nullptr;  // null: start at zero
  int64_t from_stride = 0;
  const float* bias = nullptr;  // at this tile's first column
  void* to;
  DType to_dtype;
  int64_t to_stride;
  int64_t rows = 0;  // of the tile, those that exist
  int64_t columns = 0;
};

// Memory that comes nearer while a tile's sums are made, a piece with every fourth step: all at once would
// hold up the loads that the sums wait for.
struct Fetch {
  const char* from;
  int64_t bytes;  // a piece

  HWY_INLINE void At(int64_t step) const {
    if (step % 4 == 0) __builtin_prefetch(from + step / 4 * bytes);
  }
};

template <BlockLayout kLayout>
HWY_INLINE void MultiplyTile(const float* HWY_RESTRICT a, int64_t a_stride, const float* HWY_RESTRICT b,
                             int64_t k, const Fetch& fetch, VF (&left)[kTileRows], VF (&right)[kTileRows]) {
  const F32 d;
  const int64_t lanes = Lanes();
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) left[r] = right[r] = Set(0);
#pragma GCC unroll 4
  for (int64_t p = 0; p < k; ++p) {
    fetch.At(p);
    const VF b0 = hn::Load(d, b + p * 2 * lanes);
    const VF b1 = hn::Load(d, b + p * 2 * lanes + lanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t row = kLayout == BlockLayout::kRows ? a_stride : kRowStride;
      const VF x = Set(kLayout == BlockLayout::kTiles ? a[p * kTileRows + r] : a[r * row + p]);
      left[r] = hn::MulAdd(x, b0, left[r]);
      right[r] = hn::MulAdd(x, b1, right[r]);
    }
  }
}

template <typename T, typename P>
HWY_INLINE void FinishRow(const TileTarget& t, int64_t row, int64_t column, VF sum, P part) {
  if (t.from != nullptr) sum = hn::Add(Load(t.from + row * t.from_stride + column, part), sum);
  if (t.bias != nullptr) sum = hn::Add(sum, Load(t.bias + column, part));
  Store(sum, static_cast<T*>(t.to) + row * t.to_stride + column, part);
}

template <typename T>
HWY_NOINLINE void FinishTile(const TileTarget& t, const float* sums) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* row = sums + r * TileColumns();
    Sweep(t.columns,
          [&](int64_t i, auto part) HWY_ATTR { FinishRow<T>(t, r, i, Load(row + i, part), part); });
  }
}

template <typename T>
HWY_INLINE void FinishWholeTile(const TileTarget& t, VF (&left)[kTileRows], VF (&right)[kTileRows]) {
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
    FinishRow<T>(t, r, 0, left[r], Whole());
    FinishRow<T>(t, r, Lanes(), right[r], Whole());
  }
}

// Whole tiles finish in registers, others through memory.
template <BlockLayout kLayout>
HWY_NOINLINE void Tile(const float* a, int64_t a_stride, const float* b, int64_t k, const Fetch& fetch,
                       const TileTarget& t) {
  const int64_t lanes = Lanes();
  const bool wide = t.to_dtype == DType::kF32;
  const int64_t size = wide ? 4 : 2;
  // The result's lines are on their way while the sums are made.
  for (int r = 0; r < t.rows; ++r) {
    const char* row = static_cast<const char*>(t.to) + r * t.to_stride * size;
    __builtin_prefetch(row, 1);
    __builtin_prefetch(row + t.columns * size - 1, 1);
  }
  VF left[kTileRows], right[kTileRows];
  MultiplyTile<kLayout>(a, a_stride, b, k, fetch, left, right);
  if (t.rows == kTileRows && t.columns == 2 * lanes) {
    return wide ? FinishWholeTile<float>(t, left, right) : FinishWholeTile<BF16>(t, left, right);
  }
  HWY_ALIGN float sums[kTileRows * 2 * HWY_MAX_BYTES / sizeof(float)];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
    Store(left[r], sums + r * 2 * lanes);
    Store(right[r], sums + r * 2 * lanes + lanes);
  }
  wide ? FinishTile<float>(t, sums) : FinishTile<BF16>(t, sums);
}

HWY_INLINE const char* At(const void* data, DType dtype, int64_t element) {
  return static_cast<const char*>(data) + element * (dtype == DType::kF32 ? 4 : 2);
}

// Sums of one block of k for all tiles of the panel.
template <BlockLayout kLayout>
void MultiplyBlock(const Block& a, const float* packed_b, int64_t b_panel_stride, int64_t m, int64_t n,
                   int64_t k, const TileTarget& panel) {
  const int64_t width = TileColumns(), tiles = RoundUp(m, kTileRows) / kTileRows;
  if (m == 0) return;
  for (int64_t j = 0; j < n; j += width) {
    const float* b = packed_b + (j / width) * b_panel_stride;
    // The next panel of b, a share with every tile; of few tiles a share is more than pieces hold, and what
    // lies between them is left to the processor, which mostly fetches neighbours.
    const char* next = reinterpret_cast<const char*>(j + width < n ? b + b_panel_stride : b);
    const int64_t share = j + width < n ? k * width * static_cast<int64_t>(sizeof(float)) / tiles : 0;
    for (int64_t i = 0; i < m; i += kTileRows) {
      const Fetch fetch{next + i / kTileRows * share, 4 * share / std::max<int64_t>(k, 1)};
      TileTarget t = panel;
      t.rows = std::min<int64_t>(kTileRows, m - i);
      if (t.from != nullptr) t.from += i * t.from_stride + j;
      if (t.bias != nullptr) t.bias += j;
      t.to = const_cast<char*>(At(t.to, t.to_dtype, i * t.to_stride + j));
      t.columns = std::min(width, n - j);
      Tile<kLayout>(a.data + (kLayout == BlockLayout::kTiles ? i / kTileRows : i) * a.stride, a.stride, b, k,
                    fetch, t);
    }
  }
}

int64_t BlockFloats(int64_t m) {
  return std::max(RoundUp(m, kTileRows) * kRowStride, RoundUp(m, kTileRows) / kTileRows * kTileStride);
}
int64_t ScratchBytes(int64_t m, int64_t n) {
  return (RoundUp(BlockFloats(m), 16) + m * RoundUp(n, 16)) * static_cast<int64_t>(sizeof(float));
}

// The target of the rows from `row` on.
TileTarget RowsOf(TileTarget t, int64_t row) {
  if (t.from != nullptr) t.from += row * t.from_stride;
  t.to = const_cast<char*>(At(t.to, t.to_dtype, row * t.to_stride));
  return t;
}

// Sums pass through c between blocks of k, or through `sums` (fp32) when c is bf16.
template <typename T>
void ComputeAny(const Product& product, const float* packed_b, float* scratch) {
  const auto& [a, unused, c, m, n, k] = product;
  const int64_t width = TileColumns();
  float* sums = scratch + RoundUp(BlockFloats(m), 16);
  const int64_t sums_stride = RoundUp(n, 16);
  const bool direct = c.dtype == DType::kF32;
  int64_t p = 0;
  do {  // once even if k is 0: the result is then zero, or the bias
    const int64_t block_k = std::min(kGemmBlockK, k - p);
    const bool first = p == 0, last = p + block_k >= k;
    TileTarget t{.to = c.data, .to_dtype = c.dtype, .to_stride = c.stride};
    if (!direct && !last) t.to = sums, t.to_dtype = DType::kF32, t.to_stride = sums_stride;
    if (!direct && !first) t.from = sums, t.from_stride = sums_stride;
    if (direct && (c.accumulate || !first))
      t.from = static_cast<const float*>(c.data), t.from_stride = c.stride;
    if (last) t.bias = c.bias;
    const T* data = static_cast<const T*>(a.Columns(p).data);
    const float* b = packed_b + p * width;
    if (a.transposed) {
      MultiplyBlock<BlockLayout::kTiles>(TileRows(data, a.stride, m, block_k, scratch), b, k * width, m, n,
                                         block_k, t);
    } else {
      // fp32 rows are read as they lie, but the last tile needs rows to read beyond m.
      const int64_t whole = std::is_same_v<T, float> ? m / kTileRows * kTileRows : 0;
      if constexpr (std::is_same_v<T, float>) {
        MultiplyBlock<BlockLayout::kRows>({data, a.stride}, b, k * width, whole, n, block_k, t);
      }
      const Block rest = WidenRows(data + whole * a.stride, a.stride, m - whole, block_k, scratch);
      MultiplyBlock<BlockLayout::kCopiedRows>(rest, b, k * width, m - whole, n, block_k, RowsOf(t, whole));
    }
    p += block_k;
  } while (p < k);
}

void Compute(const Product& product, const float* packed_b, float* scratch) {
  product.a.dtype == DType::kF32 ? ComputeAny<float>(product, packed_b, scratch)
                                 : ComputeAny<BF16>(product, packed_b, scratch);
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

Product Product::Rows(int64_t begin, int64_t count) const {
  Product out = *this;
  out.a = a.Rows(begin);
  out.c.data = static_cast<char*>(c.data) + begin * c.stride * SizeOf(c.dtype);
  out.m = count;
  return out;
}

Product Product::Columns(int64_t begin, int64_t count) const {
  Product out = *this;
  out.b = b.Columns(begin);
  out.c.data = static_cast<char*>(c.data) + begin * SizeOf(c.dtype);
  if (c.bias != nullptr) out.c.bias = c.bias + begin;
  out.n = count;
  return out;
}

HWY_EXPORT(PackedBytes);
HWY_EXPORT(Pack);
HWY_EXPORT(ScratchBytes);
HWY_EXPORT(Compute);

int64_t GemmPackedBytes(int64_t k, int64_t n) { return HWY_DYNAMIC_DISPATCH(PackedBytes)(k, n); }
void GemmPack(const GemmOperand& b, int64_t k, int64_t n, void* packed) {
  HWY_DYNAMIC_DISPATCH(Pack)(b, k, n, static_cast<float*>(packed));
}
int64_t GemmScratchBytes(const Product& p) { return HWY_DYNAMIC_DISPATCH(ScratchBytes)(p.m, p.n); }
void GemmCompute(const Product& product, const void* packed_b, void* scratch) {
  HWY_DYNAMIC_DISPATCH(Compute)(product, static_cast<const float*>(packed_b), static_cast<float*>(scratch));
}

}  // namespace moebius
#endif  // HWY_ONCE
