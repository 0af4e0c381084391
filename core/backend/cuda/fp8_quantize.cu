#include "core/backend/cuda/fp8_squares.cuh"

namespace moebius::cuda {

namespace {

constexpr int kSquareThreads = kThreadsOf<8>;
constexpr int kRowsOfBlock = 32;  // QuantizeRowsKernel: 4 a warp
constexpr int kTilesOfBlock = 4;  // tiles side by side

constexpr int64_t RoundUp(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

struct QuantizeArgs {
  const __nv_bfloat16* x;
  int64_t stride;
  int64_t rows;
  int64_t cols;
  int64_t groups;
  const int64_t* offsets;
};

// kAlongRow. A block owns 32 rows x 4 tiles, a warp 4 rows of them; eight lanes share a tile.
__global__ void __launch_bounds__(kSquareThreads)
    QuantizeRowsKernel(const QuantizeArgs args, const Fp8Target to) {
  const int lane = threadIdx.x % 32, part = lane % 8 * 8;
  const int64_t row = int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / 32 * 4 + lane / 8;
  const int64_t column0 = int64_t{blockIdx.y} * kTilesOfBlock * kSquare;
  const __nv_bfloat16* x = args.x + row * args.stride;
  uint4 loaded[kTilesOfBlock][2];
#pragma unroll
  for (int i = 0; i < kTilesOfBlock; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t column = column0 + i * kSquare + h * 64 + part;
      loaded[i][h] = LoadEight(x + column, row < args.rows && column < args.cols);
    }
  }
#pragma unroll
  for (int i = 0; i < kTilesOfBlock; ++i) {
    const int64_t column = column0 + i * kSquare;
    if (column >= to.terms) break;
    const Scale scale = ScaleOfEightLanes(loaded[i]);
    if (row >= args.rows) continue;
    uint8_t* values = to.values + row * to.terms + column + part;
#pragma unroll
    for (int h = 0; h < 2; ++h) *reinterpret_cast<uint2*>(values + h * 64) = RoundEight(loaded[i][h], scale);
    if (lane % 8 == 0) to.scales[column / kSquare * to.scale_stride + row] = scale.scale;
  }
}

// A thread's part of a square whose first column is `column`.
__device__ __forceinline__ void LoadSquare(const QuantizeArgs& args, const Stripe& stripe, int64_t column,
                                           uint4 (&x)[8]) {
  const InSquare in;
  const int64_t own = column + in.eight * 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int64_t row = stripe.row + in.strip * 8 + i;
    x[i] = LoadEight(args.x + row * args.stride + own, row < stripe.row_end && own < args.cols);
  }
}

// kAlongColumn, and with kRows kAlongRow of the same rows (those of groups). A block owns a square.
template <bool kRows>
__global__ void __launch_bounds__(kSquareThreads, 4)
    QuantizeColumnsKernel(const QuantizeArgs args, const Fp8Target rows, const Fp8Target columns) {
  __shared__ SquareMemory<8> memory;
  const int64_t across = TilesOf(args.cols), tile = blockIdx.x % across;
  Stripe stripe{.stripe = blockIdx.x / across, .row = blockIdx.x / across * kSquare, .row_end = args.rows};
  if (args.offsets != nullptr && !FindStripe(args.offsets, args.groups, &stripe)) return;
  uint4 x[8];
  LoadSquare(args, stripe, tile * kSquare, x);
  if constexpr (kRows) RoundRows(x, stripe, tile, rows);
  RoundColumns(x, stripe, tile * kSquare, args.cols, memory, columns);
}

// kBlocks. A block owns a square, which has one scale.
template <bool kTransposed>
__global__ void __launch_bounds__(kSquareThreads, 4)
    QuantizeBlocksKernel(const QuantizeArgs args, const Fp8Target to) {
  __shared__ float most_of_warps[kSquareThreads / 32];
  __shared__ __align__(16) uint8_t turned[kTransposed ? kSquare * kSquare : 16];
  const InSquare in;
  const int64_t across = TilesOf(args.cols), tile = blockIdx.x % across, i = blockIdx.x / across;
  const int64_t group_rows = args.rows / args.groups, down = TilesOf(group_rows), group = i / down;
  const int64_t in_group = i % down, row0 = group * group_rows + in_group * kSquare;
  const Stripe stripe{.stripe = in_group, .row = row0, .row_end = (group + 1) * group_rows};
  uint4 x[8];
  LoadSquare(args, stripe, tile * kSquare, x);
  uint32_t most = 0;
#pragma unroll
  for (int r = 0; r < 8; ++r) most = Larger(most, LargestPair(x[r]));
#pragma unroll
  for (int step = 16; step > 0; step /= 2) most = Larger(most, __shfl_xor_sync(kWholeWarp, most, step));
  if (threadIdx.x % 32 == 0) most_of_warps[threadIdx.x / 32] = fmaxf(Low(most), High(most));
  __syncthreads();
  float amax = 0;
#pragma unroll
  for (int w = 0; w < kSquareThreads / 32; ++w) amax = fmaxf(amax, most_of_warps[w]);
  const Scale scale = ScaleOf(amax);
  if (threadIdx.x == 0) {
    const int64_t line_block = kTransposed ? group * across + tile : group * down + in_group;
    to.scales[line_block * to.scale_stride + (kTransposed ? in_group : tile)] = scale.scale;
  }
  if constexpr (kTransposed) {
    StoreTurned(x, tile * kSquare, args.cols, group * args.cols + tile * kSquare, in_group * kSquare, turned,
                to, [&](int) { return scale; });
  } else {
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const int64_t row = row0 + in.strip * 8 + r;
      if (row >= stripe.row_end) break;
      *reinterpret_cast<uint2*>(to.values + row * to.terms + tile * kSquare + in.eight * 8) =
          RoundEight(x[r], scale);
    }
  }
}

QuantizeArgs ArgsOf(const Fp8Source& s) {
  return {.x = static_cast<const __nv_bfloat16*>(s.x),
          .stride = s.stride,
          .rows = s.rows,
          .cols = s.cols,
          .groups = s.groups,
          .offsets = s.offsets};
}

}  // namespace

Fp8Matrix MatrixOf(const Fp8Source& s) {
  Fp8Matrix m;
  switch (s.tiles) {
    case Fp8Tiles::kAlongRow:
      m.lines = s.rows;
      m.terms = RoundUp(s.cols, kFp8Tile);
      break;
    case Fp8Tiles::kAlongColumn:
      m.lines = s.cols;
      // Each group fills its last tile.
      m.terms = s.offsets == nullptr ? RoundUp(s.rows, kFp8Tile) : (s.rows / kFp8Tile + s.groups) * kFp8Tile;
      break;
    case Fp8Tiles::kBlocks:
      m.blocks = true;
      m.lines = s.transposed ? s.groups * s.cols : s.rows;
      m.terms = RoundUp(s.transposed ? s.rows / s.groups : s.cols, kFp8Tile);
      break;
  }
  m.scale_stride = RoundUp(m.blocks ? m.terms / kFp8Tile : m.lines, 4);
  m.scale_count = m.scale_stride * (m.blocks ? s.groups * TilesOf(m.lines / s.groups) : m.terms / kFp8Tile);
  return m;
}

bool CanQuantize(const Fp8Source& s) {
  return s.bf16 && reinterpret_cast<uintptr_t>(s.x) % 16 == 0 && s.stride % 8 == 0 && s.cols % 8 == 0;
}

void Quantize(cudaStream_t stream, const Fp8Source& s, const Fp8Matrix& to) {
  if (s.rows == 0 || s.cols == 0) return;
  const QuantizeArgs args = ArgsOf(s);
  const Fp8Target target(to);
  const auto squares = [&](int64_t stripes) { return static_cast<unsigned>(stripes * TilesOf(s.cols)); };
  switch (s.tiles) {
    case Fp8Tiles::kAlongRow: {
      const dim3 grid(static_cast<unsigned>((s.rows + kRowsOfBlock - 1) / kRowsOfBlock),
                      static_cast<unsigned>((to.terms / kFp8Tile + kTilesOfBlock - 1) / kTilesOfBlock));
      QuantizeRowsKernel<<<grid, kSquareThreads, 0, stream>>>(args, target);
      break;
    }
    case Fp8Tiles::kAlongColumn:
      QuantizeColumnsKernel<false>
          <<<squares(to.terms / kFp8Tile), kSquareThreads, 0, stream>>>(args, {}, target);
      break;
    case Fp8Tiles::kBlocks: {
      const auto kernel = s.transposed ? QuantizeBlocksKernel<true> : QuantizeBlocksKernel<false>;
      kernel<<<squares(s.groups * TilesOf(s.rows / s.groups)), kSquareThreads, 0, stream>>>(args, target);
      break;
    }
  }
}

void QuantizeBoth(cudaStream_t stream, const Fp8Source& s, const Fp8Matrix& rows, const Fp8Matrix& columns) {
  if (s.rows == 0 || s.cols == 0) return;
  const unsigned grid = static_cast<unsigned>(columns.terms / kFp8Tile * TilesOf(s.cols));
  QuantizeColumnsKernel<true>
      <<<grid, kSquareThreads, 0, stream>>>(ArgsOf(s), Fp8Target(rows), Fp8Target(columns));
}

}  // namespace moebius::cuda
