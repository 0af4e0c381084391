#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "core/backend/cuda/fp8_quantize.h"

namespace moebius::cuda {

namespace {

constexpr int kThreads = 256;

struct RoundArgs {
  Fp8Source source;
  float* out;
  int64_t tiles_across;  // tiles or blocks side by side in a row of the source
  int64_t count;         // of tiles, blocks, or stripes of 128 rows and one column
};

template <typename T>
__device__ float At(const Fp8Source& s, int64_t row, int64_t column) {
  return static_cast<float>(static_cast<const T*>(s.x)[row * s.stride + column]);
}

__device__ float ScaleOf(float amax) {
  const float scale = amax / 448.0f;
  return scale == 0 ? 1.0f : scale;
}

__device__ float Rounded(float x, float scale) {
  const __nv_fp8_storage_t code = __nv_cvt_float_to_fp8(x / scale, __NV_SATFINITE, __NV_E4M3);
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3))) * scale;
}

// A warp rounds a tile of a row.
template <typename T>
__global__ void __launch_bounds__(kThreads) RoundRowsKernel(const RoundArgs args) {
  const Fp8Source& s = args.source;
  const int lane = threadIdx.x % 32;
  const int64_t tile = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (tile >= args.count) return;
  const int64_t row = tile / args.tiles_across, begin = tile % args.tiles_across * kFp8Tile;
  const int64_t end = min(begin + kFp8Tile, s.cols);
  float amax = 0;
  for (int64_t c = begin + lane; c < end; c += 32) amax = fmaxf(amax, fabsf(At<T>(s, row, c)));
  for (int step = 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, step));
  const float scale = ScaleOf(amax);
  for (int64_t c = begin + lane; c < end; c += 32)
    args.out[row * s.cols + c] = Rounded(At<T>(s, row, c), scale);
}

// A thread rounds one column of a stripe of at most 128 rows of a group.
template <typename T>
__global__ void __launch_bounds__(kThreads) RoundColumnsKernel(const RoundArgs args) {
  const Fp8Source& s = args.source;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= args.count) return;
  const int64_t column = i % s.cols;
  int64_t stripe = i / s.cols, begin = 0, end = s.rows;
  if (s.offsets != nullptr) {
    int64_t g = 0;
    for (; g < s.groups; ++g) {
      begin = s.offsets[g];
      end = s.offsets[g + 1];
      const int64_t stripes = (end - begin + kFp8Tile - 1) / kFp8Tile;
      if (stripe < stripes) break;
      stripe -= stripes;
    }
    if (g == s.groups) return;
  }
  begin += stripe * kFp8Tile;
  end = min(begin + kFp8Tile, end);
  float amax = 0;
  for (int64_t r = begin; r < end; ++r) amax = fmaxf(amax, fabsf(At<T>(s, r, column)));
  const float scale = ScaleOf(amax);
  for (int64_t r = begin; r < end; ++r) args.out[r * s.cols + column] = Rounded(At<T>(s, r, column), scale);
}

// A thread block rounds a block of 128 x 128.
template <typename T>
__global__ void __launch_bounds__(kThreads) RoundBlocksKernel(const RoundArgs args) {
  __shared__ float most[kThreads / 32];
  const Fp8Source& s = args.source;
  const int64_t group_rows = s.rows / s.groups, down = (group_rows + kFp8Tile - 1) / kFp8Tile;
  const int64_t across = blockIdx.x % args.tiles_across, i = blockIdx.x / args.tiles_across;
  const int64_t first = i / down * group_rows, row0 = first + i % down * kFp8Tile;
  const int64_t rows = min(kFp8Tile, first + group_rows - row0), column0 = across * kFp8Tile;
  const int64_t cols = min(kFp8Tile, s.cols - column0);
  float amax = 0;
  for (int64_t e = threadIdx.x; e < rows * cols; e += kThreads) {
    amax = fmaxf(amax, fabsf(At<T>(s, row0 + e / cols, column0 + e % cols)));
  }
  for (int step = 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, step));
  if (threadIdx.x % 32 == 0) most[threadIdx.x / 32] = amax;
  __syncthreads();
  for (const float other : most) amax = fmaxf(amax, other);
  const float scale = ScaleOf(amax);
  for (int64_t e = threadIdx.x; e < rows * cols; e += kThreads) {
    const int64_t row = row0 + e / cols, column = column0 + e % cols;
    args.out[row * s.cols + column] = Rounded(At<T>(s, row, column), scale);
  }
}

template <typename T>
void Launch(cudaStream_t stream, RoundArgs args) {
  const Fp8Source& s = args.source;
  args.tiles_across = (s.cols + kFp8Tile - 1) / kFp8Tile;
  const auto blocks = [&](int64_t threads) {
    return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  };
  switch (s.tiles) {
    case Fp8Tiles::kAlongRow:
      args.count = s.rows * args.tiles_across;
      RoundRowsKernel<T><<<blocks(args.count * 32), kThreads, 0, stream>>>(args);
      break;
    case Fp8Tiles::kAlongColumn: {
      const Fp8Matrix matrix = MatrixOf(s);
      args.count = matrix.terms / kFp8Tile * s.cols;
      RoundColumnsKernel<T><<<blocks(args.count), kThreads, 0, stream>>>(args);
      break;
    }
    case Fp8Tiles::kBlocks: {
      const int64_t down = (s.rows / s.groups + kFp8Tile - 1) / kFp8Tile;
      args.count = s.groups * down * args.tiles_across;
      RoundBlocksKernel<T><<<static_cast<unsigned>(args.count), kThreads, 0, stream>>>(args);
      break;
    }
  }
}

}  // namespace

void RoundToFp8(cudaStream_t stream, const Fp8Source& source, float* out) {
  if (source.rows == 0 || source.cols == 0) return;
  const RoundArgs args{.source = source, .out = out, .tiles_across = 0, .count = 0};
  source.bf16 ? Launch<__nv_bfloat16>(stream, args) : Launch<float>(stream, args);
}

}  // namespace moebius::cuda
