#include <cuda_bf16.h>

#include "core/backend/cuda/plain_product.h"

namespace moebius::cuda {

namespace {

using Bf16 = __nv_bfloat16;

constexpr int kThreads = 256;
constexpr int kTile = 64;   // rows and columns of c that a block owns
constexpr int kTerms = 16;  // terms of the sums that lie in shared memory at a time
constexpr int kPitch = kTile + 4;
constexpr int kLoads = kTile * kTerms / kThreads;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__host__ __device__ constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

__device__ __forceinline__ float Widen(float x) { return x; }
__device__ __forceinline__ float Widen(Bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void Store(float* to, float x) { *to = x; }
__device__ __forceinline__ void Store(Bf16* to, float x) { *to = __float2bfloat16_rn(x); }

// What a block works on: rows [row, row_end) of c, columns from `column`, terms [term, term_end).
struct Work {
  int64_t group;
  int64_t row;
  int64_t row_end;
  int64_t column;
  int64_t term;
  int64_t term_end;
};

// Row tile number `tile` when every group's rows are cut into tiles of their own; false past the last. Every
// warp finds it for itself: a lane counts the tiles of one group in 32.
__device__ bool FindRowTile(const PlainProduct& p, int64_t tile, Work* work) {
  const int lane = threadIdx.x % 32;
  for (int64_t first = 0; first < p.groups; first += 32) {
    const int64_t g = first + lane;
    const int64_t begin = g < p.groups ? p.offsets[g] : 0, end = g < p.groups ? p.offsets[g + 1] : 0;
    const int64_t tiles = CeilDiv(end - begin, kTile);
    int64_t sum = tiles;  // of the lanes up to this one
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int64_t below = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += below;
    }
    const unsigned past = __ballot_sync(kAllLanes, tile < sum);
    if (past != 0) {
      const int owner = __ffs(static_cast<int>(past)) - 1;
      work->group = first + owner;
      work->row = __shfl_sync(kAllLanes, begin + (tile - (sum - tiles)) * kTile, owner);
      work->row_end = __shfl_sync(kAllLanes, end, owner);
      return true;
    }
    tile -= __shfl_sync(kAllLanes, sum, 31);
  }
  return false;
}

__device__ bool FindWork(const PlainProduct& p, Work* work) {
  const int64_t column_tiles = CeilDiv(p.n, kTile);
  int64_t tile = blockIdx.x / column_tiles;
  work->column = blockIdx.x % column_tiles * kTile;
  work->group = 0;
  work->term = 0;
  work->term_end = p.k;
  if (p.ragged == Ragged::kRows) return FindRowTile(p, tile, work);
  if (p.ragged == Ragged::kTerms) {
    const int64_t row_tiles = CeilDiv(p.m, kTile);
    work->group = tile / row_tiles;
    tile %= row_tiles;
    work->term = p.offsets[work->group];
    work->term_end = p.offsets[work->group + 1];
    if (work->term == work->term_end) return false;  // an empty group's c stays
  }
  work->row = tile * kTile;
  work->row_end = p.m;
  return true;
}

// c = a · b. A block owns a tile of 64 x 64 elements of c, a thread 4 x 4 of them; every element is one chain
// of fused multiply-adds in fp32 over ascending terms. Tiles of a and b, widened to fp32, pass through shared
// memory, [term][row or column]; the next ones are on their way in registers while one is used.
template <typename T, typename C, bool kATransposed, bool kBTransposed>
__global__ void __launch_bounds__(kThreads) PlainKernel(const PlainProduct p) {
  __shared__ __align__(16) float a_tile[kTerms][kPitch];
  __shared__ __align__(16) float b_tile[kTerms][kPitch];
  Work work;
  if (!FindWork(p, &work)) return;
  const T* a = static_cast<const T*>(p.a);
  const T* b = static_cast<const T*>(p.b) + (p.ragged == Ragged::kRows ? work.group * p.b_group : 0);
  C* c = static_cast<C*>(p.c) + (p.ragged == Ragged::kTerms ? work.group * p.c_group : 0);

  // Adjacent threads load adjacent elements: along the terms, or along the rows or columns.
  const auto term_of = [](int i, bool along_terms) { return along_terms ? i % kTerms : i / kTile; };
  const auto side_of = [](int i, bool along_terms) { return along_terms ? i / kTerms : i % kTile; };
  T a_next[kLoads], b_next[kLoads];
  const auto load = [&](int64_t term0) {
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      const int i = threadIdx.x + l * kThreads;
      const int64_t a_term = term0 + term_of(i, !kATransposed), row = work.row + side_of(i, !kATransposed);
      const int64_t b_term = term0 + term_of(i, kBTransposed),
                    column = work.column + side_of(i, kBTransposed);
      a_next[l] = a_term < work.term_end && row < work.row_end
                      ? a[kATransposed ? a_term * p.a_stride + row : row * p.a_stride + a_term]
                      : T(0.0f);
      b_next[l] = b_term < work.term_end && column < p.n
                      ? b[kBTransposed ? column * p.b_stride + b_term : b_term * p.b_stride + column]
                      : T(0.0f);
    }
  };

  const int row0 = threadIdx.x / 16 * 4, column0 = threadIdx.x % 16 * 4;
  float sums[4][4] = {};
  load(work.term);
  for (int64_t term0 = work.term; term0 < work.term_end; term0 += kTerms) {
    __syncthreads();
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      const int i = threadIdx.x + l * kThreads;
      a_tile[term_of(i, !kATransposed)][side_of(i, !kATransposed)] = Widen(a_next[l]);
      b_tile[term_of(i, kBTransposed)][side_of(i, kBTransposed)] = Widen(b_next[l]);
    }
    __syncthreads();
    load(term0 + kTerms);
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      const float4 x = *reinterpret_cast<const float4*>(&a_tile[term][row0]);
      const float4 y = *reinterpret_cast<const float4*>(&b_tile[term][column0]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(xs[i], ys[j], sums[i][j]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = work.row + row0 + i;
    if (row >= work.row_end) break;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t column = work.column + column0 + j;
      if (column >= p.n) break;
      C* at = c + row * p.c_stride + column;
      float sum = sums[i][j];
      if (p.accumulate) sum += Widen(*at);
      if (p.bias != nullptr) sum += p.bias[column];
      Store(at, sum);
    }
  }
}

template <typename T, typename C>
void Launch(cudaStream_t stream, const PlainProduct& p) {
  int64_t row_tiles = CeilDiv(p.m, kTile);
  if (p.ragged == Ragged::kRows) row_tiles += p.groups;  // each group's last tile may be part of one
  if (p.ragged == Ragged::kTerms) row_tiles *= p.groups;
  const int64_t blocks = row_tiles * CeilDiv(p.n, kTile);
  if (p.m == 0 || blocks == 0) return;
  const auto kernel =
      p.a_transposed ? (p.b_transposed ? PlainKernel<T, C, true, true> : PlainKernel<T, C, true, false>)
                     : (p.b_transposed ? PlainKernel<T, C, false, true> : PlainKernel<T, C, false, false>);
  kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p);
}

}  // namespace

PlainProduct PlainOf(const GroupedProblem& problem) {
  PlainProduct p{.bf16 = problem.bf16, .groups = problem.groups, .offsets = problem.offsets};
  switch (problem.kind) {
    case GroupedProductKind::kForward:
    case GroupedProductKind::kBackwardInput: {
      const bool forward = problem.kind == GroupedProductKind::kForward;
      p.ragged = Ragged::kRows;
      p.a = forward ? problem.x : problem.y;
      p.a_stride = forward ? problem.x_stride : problem.y_stride;
      p.b = problem.w;
      p.b_stride = problem.w_stride;
      p.b_group = problem.out * problem.w_stride;
      p.b_transposed = forward;
      p.c = forward ? problem.y : problem.x;
      p.c_stride = forward ? problem.y_stride : problem.x_stride;
      p.c_bf16 = problem.bf16;
      p.m = problem.rows;
      p.n = forward ? problem.out : problem.in;
      p.k = forward ? problem.in : problem.out;
      break;
    }
    case GroupedProductKind::kBackwardWeight:
      p.ragged = Ragged::kTerms;
      p.a = problem.y;
      p.a_stride = problem.y_stride;
      p.a_transposed = true;
      p.b = problem.x;
      p.b_stride = problem.x_stride;
      p.c = problem.w;
      p.c_stride = problem.w_stride;
      p.c_group = problem.out * problem.w_stride;
      p.accumulate = true;
      p.m = problem.out;
      p.n = problem.in;
      break;
  }
  return p;
}

void RunPlain(cudaStream_t stream, const PlainProduct& p) {
  if (p.bf16) {
    p.c_bf16 ? Launch<Bf16, Bf16>(stream, p) : Launch<Bf16, float>(stream, p);
  } else {
    p.c_bf16 ? Launch<float, Bf16>(stream, p) : Launch<float, float>(stream, p);
  }
}

}  // namespace moebius::cuda
