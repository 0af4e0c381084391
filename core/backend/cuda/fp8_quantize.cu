#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "core/backend/cuda/fp8_quantize.h"

namespace moebius::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kTile = static_cast<int>(kFp8Tile);
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kRowsOfBlock = 32;  // QuantizeRowsKernel: 4 a warp
constexpr int kTilesOfBlock = 4;  // tiles side by side

__host__ __device__ constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

// Eight bf16 of a row; zeros where they lie outside the matrix.
__device__ __forceinline__ uint4 LoadEight(const __nv_bfloat16* x, bool inside) {
  return inside ? __ldg(reinterpret_cast<const uint4*>(x)) : make_uint4(0, 0, 0, 0);
}

// The larger magnitudes of two pairs of bf16; NaN does not count.
__device__ __forceinline__ uint32_t Larger(uint32_t most, uint32_t pair) {
  const __nv_bfloat162 result = __hmax2(*reinterpret_cast<const __nv_bfloat162*>(&most),
                                        __habs2(*reinterpret_cast<const __nv_bfloat162*>(&pair)));
  return *reinterpret_cast<const uint32_t*>(&result);
}
__device__ __forceinline__ float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float High(uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000u); }

// Division by a tile's scale, amax / 448 (1 when that is 0). The product with the rounded reciprocal,
// corrected by its remainder, is the rounded quotient. A power of two on both sides keeps the steps inside
// fp32's range.
struct alignas(16) Scale {
  float scale;
  float factor;
  float divisor;  // scale * factor
  float reciprocal;
};
__device__ __forceinline__ Scale ScaleOf(float amax) {
  const float quotient = amax / 448.0f, scale = quotient == 0 ? 1.0f : quotient;
  const float factor = scale < 0x1p-80f ? 0x1p100f : scale > 0x1p100f ? 0x1p-100f : 1.0f;
  return {scale, factor, scale * factor, 1.0f / (scale * factor)};
}
__device__ __forceinline__ float Divide(float x, const Scale& s) {
  const float dividend = x * s.factor, quotient = dividend * s.reciprocal;
  return fmaf(fmaf(-quotient, s.divisor, dividend), s.reciprocal, quotient);
}
// Two values divided and rounded, the first in the low byte.
__device__ __forceinline__ uint32_t RoundPair(float low, float high, const Scale& s) {
  return __nv_cvt_float2_to_fp8x2(make_float2(Divide(low, s), Divide(high, s)), __NV_SATFINITE, __NV_E4M3);
}
__device__ __forceinline__ uint32_t RoundFour(uint32_t low, uint32_t high, const Scale& s) {
  return RoundPair(Low(low), High(low), s) | RoundPair(Low(high), High(high), s) << 16;
}
__device__ __forceinline__ uint2 RoundEight(uint4 x, const Scale& s) {
  return make_uint2(RoundFour(x.x, x.y, s), RoundFour(x.z, x.w, s));
}

struct QuantizeArgs {
  const __nv_bfloat16* x;
  int64_t stride;
  int64_t rows;
  int64_t cols;
  int64_t groups;
  const int64_t* offsets;
  uint8_t* values;
  float* scales;
  int64_t terms;
  int64_t scale_stride;
};

// kAlongRow. A block owns 32 rows x 4 tiles, a warp 4 rows of them; 8 lanes share a tile, and lane l of them
// has its elements 8 l .. 8 l + 7 and 64 more.
__global__ void __launch_bounds__(kThreads) QuantizeRowsKernel(const QuantizeArgs args) {
  const int lane = threadIdx.x % 32, part = lane % 8 * 8;
  const int64_t row = int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / 32 * 4 + lane / 8;
  const int64_t column0 = int64_t{blockIdx.y} * kTilesOfBlock * kTile;
  const __nv_bfloat16* x = args.x + row * args.stride;
  uint4 loaded[kTilesOfBlock][2];
#pragma unroll
  for (int i = 0; i < kTilesOfBlock; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t column = column0 + i * kTile + h * 64 + part;
      loaded[i][h] = LoadEight(x + column, row < args.rows && column < args.cols);
    }
  }
#pragma unroll
  for (int i = 0; i < kTilesOfBlock; ++i) {
    const int64_t column = column0 + i * kTile;
    if (column >= args.terms) break;
    uint32_t most = 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint4 v = loaded[i][h];
      most = Larger(Larger(Larger(Larger(most, v.x), v.y), v.z), v.w);
    }
    float amax = fmaxf(Low(most), High(most));
#pragma unroll
    for (int step = 1; step < 8; step *= 2) amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, step));
    const Scale scale = ScaleOf(amax);
    if (row >= args.rows) continue;
    uint8_t* to = args.values + row * args.terms + column + part;
#pragma unroll
    for (int h = 0; h < 2; ++h) *reinterpret_cast<uint2*>(to + h * 64) = RoundEight(loaded[i][h], scale);
    if (lane % 8 == 0) args.scales[column / kTile * args.scale_stride + row] = scale.scale;
  }
}

// The rows [row, row_end) of stripe number `stripe` when every group is cut into stripes of 128 rows; false
// past the last. Every warp finds them for itself: a lane counts the stripes of one group in 32.
__device__ __forceinline__ bool FindStripe(const QuantizeArgs& args, int64_t stripe, int64_t* row,
                                           int64_t* row_end) {
  const int lane = threadIdx.x % 32;
  for (int64_t first = 0; first < args.groups; first += 32) {
    const int64_t g = first + lane;
    const int64_t begin = g < args.groups ? args.offsets[g] : 0,
                  end = g < args.groups ? args.offsets[g + 1] : 0;
    const int64_t stripes = CeilDiv(end - begin, kTile);
    int64_t sum = stripes;  // of the lanes up to this one
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int64_t below = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += below;
    }
    const unsigned past = __ballot_sync(kAllLanes, stripe < sum);
    if (past != 0) {
      const int owner = __ffs(static_cast<int>(past)) - 1;
      *row = __shfl_sync(kAllLanes, begin + (stripe - (sum - stripes)) * kTile, owner);
      *row_end = __shfl_sync(kAllLanes, end, owner);
      return true;
    }
    stripe -= __shfl_sync(kAllLanes, sum, 31);
  }
  return false;
}

// kBlocks and kAlongColumn. A block owns a square of 128 x 128 of the source, a thread 8 adjacent rows of 8
// adjacent columns, in registers from their one load to their rounding. When transposed, values pass through
// shared memory: column c's 8 terms of strip s at piece s ^ (c / 8) of its 128 bytes, which neither side
// finds in one bank.
// Where the scale of a column lies: threads that want the same one of their eight find them side by side.
__device__ __forceinline__ int ScalePlace(int column) { return column % 8 * (kTile / 8) + column / 8; }

template <bool kTransposed, bool kBlocks>
__global__ void __launch_bounds__(kThreads, 4) QuantizeSquaresKernel(const QuantizeArgs args) {
  __shared__ __align__(16) uint32_t most_of_warps[kThreads / 32][kTile / 2];
  __shared__ __align__(16) Scale scales[kTile];
  __shared__ __align__(16) uint8_t turned[kTransposed ? kTile * kTile : 16];
  const int eight = threadIdx.x % 16, strip = threadIdx.x / 16, warp = threadIdx.x / 32,
            lane = threadIdx.x % 32;
  const int64_t across = CeilDiv(args.cols, kTile), chunk = blockIdx.x % across, stripe = blockIdx.x / across;
  int64_t row0 = stripe * kTile, row_end = args.rows, group = 0, down = 1, in_group = stripe;
  if constexpr (kBlocks) {
    const int64_t group_rows = args.rows / args.groups;
    down = CeilDiv(group_rows, kTile);
    group = stripe / down;
    in_group = stripe % down;
    row0 = group * group_rows + in_group * kTile;
    row_end = (group + 1) * group_rows;
  } else if (args.offsets != nullptr) {
    if (!FindStripe(args, stripe, &row0, &row_end)) return;
  }
  const int64_t column0 = chunk * kTile + eight * 8;
  uint4 loaded[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int64_t row = row0 + strip * 8 + i;
    loaded[i] = LoadEight(args.x + row * args.stride + column0, row < row_end && column0 < args.cols);
  }

  // The largest of each column; then, for kBlocks, of all.
  uint4 most = make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    most.x = Larger(most.x, loaded[i].x);
    most.y = Larger(most.y, loaded[i].y);
    most.z = Larger(most.z, loaded[i].z);
    most.w = Larger(most.w, loaded[i].w);
  }
  Scale of_block;
  if constexpr (kBlocks) {
    const uint32_t pair = Larger(Larger(Larger(most.x, most.y), most.z), most.w);
    float amax = fmaxf(Low(pair), High(pair));
#pragma unroll
    for (int step = 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, step));
    float* of_warps = reinterpret_cast<float*>(most_of_warps);
    if (lane == 0) of_warps[warp] = amax;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) amax = fmaxf(amax, of_warps[w]);
    of_block = ScaleOf(amax);
    const int64_t line_block = kTransposed ? group * across + chunk : group * down + in_group;
    if (threadIdx.x == 0) {
      args.scales[line_block * args.scale_stride + (kTransposed ? in_group : chunk)] = of_block.scale;
    }
  } else {
    most.x = Larger(most.x, __shfl_xor_sync(kAllLanes, most.x, 16));
    most.y = Larger(most.y, __shfl_xor_sync(kAllLanes, most.y, 16));
    most.z = Larger(most.z, __shfl_xor_sync(kAllLanes, most.z, 16));
    most.w = Larger(most.w, __shfl_xor_sync(kAllLanes, most.w, 16));
    if (lane < 16) *reinterpret_cast<uint4*>(&most_of_warps[warp][eight * 4]) = most;
    __syncthreads();
    if (threadIdx.x < kTile) {
      const int c = threadIdx.x;
      uint32_t pair = 0;
#pragma unroll
      for (int w = 0; w < kThreads / 32; ++w) pair = Larger(pair, most_of_warps[w][c / 2]);
      const Scale scale = ScaleOf(c % 2 == 0 ? Low(pair) : High(pair));
      scales[ScalePlace(c)] = scale;
      if (chunk * kTile + c < args.cols)
        args.scales[stripe * args.scale_stride + chunk * kTile + c] = scale.scale;
    }
    __syncthreads();
  }

  if constexpr (!kTransposed) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int64_t row = row0 + strip * 8 + i;
      if (row >= row_end) break;
      *reinterpret_cast<uint2*>(args.values + row * args.terms + column0) = RoundEight(loaded[i], of_block);
    }
  } else {
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const Scale scale = kBlocks ? of_block : scales[ScalePlace(eight * 8 + c)];
      const auto element = [&](int i) {
        const uint4 v = loaded[i];
        const uint32_t pair = c / 2 == 0 ? v.x : c / 2 == 1 ? v.y : c / 2 == 2 ? v.z : v.w;
        return c % 2 == 0 ? Low(pair) : High(pair);
      };
      uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) pairs[i] = RoundPair(element(2 * i), element(2 * i + 1), scale);
      *reinterpret_cast<uint2*>(&turned[(eight * 8 + c) * kTile + (strip ^ eight) * 8]) =
          make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
    }
    __syncthreads();
    const int64_t line0 = (kBlocks ? group * args.cols : 0) + chunk * kTile, term0 = in_group * kTile;
#pragma unroll
    for (int i = 0; i < kTile * 8 / kThreads; ++i) {
      const int c = (threadIdx.x + i * kThreads) / 8, piece = threadIdx.x % 8 * 2, swap = c / 8;
      if (chunk * kTile + c >= args.cols) break;
      uint4 v = *reinterpret_cast<const uint4*>(&turned[c * kTile + (piece ^ (swap & ~1)) * 8]);
      if (swap % 2 == 1) v = make_uint4(v.z, v.w, v.x, v.y);
      *reinterpret_cast<uint4*>(args.values + (line0 + c) * args.terms + term0 + piece * 8) = v;
    }
  }
}

}  // namespace

Fp8Matrix MatrixOf(const Fp8Source& s) {
  Fp8Matrix m;
  switch (s.tiles) {
    case Fp8Tiles::kAlongRow:
      m.lines = s.rows;
      m.terms = RoundUp(s.cols, kTile);
      break;
    case Fp8Tiles::kAlongColumn:
      m.lines = s.cols;
      // Each group fills its last tile.
      m.terms = s.offsets == nullptr ? RoundUp(s.rows, kTile) : (s.rows / kTile + s.groups) * kTile;
      break;
    case Fp8Tiles::kBlocks:
      m.blocks = true;
      m.lines = s.transposed ? s.groups * s.cols : s.rows;
      m.terms = RoundUp(s.transposed ? s.rows / s.groups : s.cols, kTile);
      break;
  }
  m.scale_stride = RoundUp(m.blocks ? m.terms / kTile : m.lines, 4);
  m.scale_count =
      m.scale_stride * (m.blocks ? s.groups * CeilDiv(m.lines / s.groups, kTile) : m.terms / kTile);
  return m;
}

bool CanQuantize(const Fp8Source& s) {
  return s.bf16 && reinterpret_cast<uintptr_t>(s.x) % 16 == 0 && s.stride % 8 == 0 && s.cols % 8 == 0;
}

void Quantize(cudaStream_t stream, const Fp8Source& s, const Fp8Matrix& to) {
  if (s.rows == 0 || s.cols == 0) return;
  const QuantizeArgs args{.x = static_cast<const __nv_bfloat16*>(s.x),
                          .stride = s.stride,
                          .rows = s.rows,
                          .cols = s.cols,
                          .groups = s.groups,
                          .offsets = s.offsets,
                          .values = to.values,
                          .scales = to.scales,
                          .terms = to.terms,
                          .scale_stride = to.scale_stride};
  if (s.tiles == Fp8Tiles::kAlongRow) {
    const dim3 grid(static_cast<unsigned>(CeilDiv(s.rows, kRowsOfBlock)),
                    static_cast<unsigned>(CeilDiv(to.terms, kTilesOfBlock * kTile)));
    QuantizeRowsKernel<<<grid, kThreads, 0, stream>>>(args);
    return;
  }
  const bool blocks = s.tiles == Fp8Tiles::kBlocks;
  const int64_t stripes = blocks ? s.groups * CeilDiv(s.rows / s.groups, kTile) : to.terms / kTile;
  const unsigned grid = static_cast<unsigned>(stripes * CeilDiv(s.cols, kTile));
  const auto kernel = !blocks        ? QuantizeSquaresKernel<true, false>
                      : s.transposed ? QuantizeSquaresKernel<true, true>
                                     : QuantizeSquaresKernel<false, true>;
  kernel<<<grid, kThreads, 0, stream>>>(args);
}

}  // namespace moebius::cuda
