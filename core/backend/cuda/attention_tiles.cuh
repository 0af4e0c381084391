// What the forward and the backward of our own attention share: the problem as kernels see it, tiles of rows
// in shared memory, and the product of two tiles. A block has 256 threads: thread (y, x) of 16 x 16 owns rows
// 4 y .. 4 y + 3 and columns 4 x .. 4 x + 3 of every 64 x 64 product.
#pragma once

#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

constexpr int kTile = 64;          // queries or keys of a tile, columns of a product
constexpr int kDepth = 32;         // columns that one step of a score product takes
constexpr int kPitch = kTile + 4;  // floats between rows in shared memory: a multiple of 16 bytes
constexpr int kTileThreads = 256;
constexpr float kLog2E = 1.4426950408889634f;

// Rows of a view; `vector`: eight columns from a multiple of eight on may be read in 16-byte pieces.
template <typename T>
struct TileRows {
  T* data = nullptr;
  int64_t stride = 0;
  int cols = 0;
  bool vector = false;
};

template <typename T>
TileRows<T> RowsOf(const TensorView& x) {
  if (!x) return {};
  return {Data<T>(x), x.stride, static_cast<int>(x.cols()),
          reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && (x.stride * sizeof(T)) % 16 == 0};
}

// A tile: positions [first, first + kTile) of the sequence of `length` tokens that starts at token `start`.
struct SequenceTile {
  int32_t start;
  int32_t length;
  int32_t first;
};

template <typename T>
struct AttentionProblem {
  TileRows<T> q, k, k_shared, v, o;
  float* lse;  // [heads, tokens]
  const SequenceTile* tiles;
  int64_t tokens;
  int heads;
  int groups;
  int d;  // of a whole key
  int dk;
  int dv;
  float scale;
};

// Columns [c, c + 8) of a row as fp32, zeros from its end on; c is a multiple of eight.
template <typename T>
__device__ __forceinline__ void Load8(const TileRows<T>& x, int64_t row, int c, float (&out)[8]) {
  const T* from = x.data + row * x.stride + c;
  if (x.vector && c + 8 <= x.cols) {
#pragma unroll
    for (int i = 0; i < 8; i += kVector<T>) {
      const auto piece = *reinterpret_cast<const Vector<T, kVector<T>>*>(from + i);
#pragma unroll
      for (int j = 0; j < kVector<T>; ++j) out[i + j] = ToFloat(piece.at[j]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = c + i < x.cols ? ToFloat(from[i]) : 0.0f;
}

// The same of a whole key [k | k_shared] of key head `group`.
template <typename T>
__device__ __forceinline__ void LoadKey8(const AttentionProblem<T>& p, int64_t token, int group, int c,
                                         float (&out)[8]) {
  const int64_t row = token * p.groups + group;
  if (c + 8 <= p.dk || p.d == p.dk) return Load8(p.k, row, c, out);
  if (c >= p.dk && p.dk % 8 == 0) return Load8(p.k_shared, token, c - p.dk, out);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int at = c + i;
    out[i] = 0;
    if (at < p.dk) {
      out[i] = ToFloat(p.k.data[row * p.k.stride + at]);
    } else if (at < p.d) {
      out[i] = ToFloat(p.k_shared.data[token * p.k_shared.stride + at - p.dk]);
    }
  }
}

// Columns [c, c + kDepth) of kTile rows, turned: to[column][row]. load(r, c, out) reads eight columns of row
// r of the tile; rows from `rows` on are zeros.
template <typename Load>
__device__ __forceinline__ void StageTurned(const Load& load, int rows, int c, float (*to)[kPitch]) {
  const int row = threadIdx.x % kTile, at = static_cast<int>(threadIdx.x) / kTile * 8;
  float x[8] = {};
  if (row < rows) load(row, c + at, x);
#pragma unroll
  for (int i = 0; i < 8; ++i) to[at + i][row] = x[i];
}

// Columns [c, c + kTile) of kTile rows as they lie: to[row][column].
template <typename Load>
__device__ __forceinline__ void StageRows(const Load& load, int rows, int c, float (*to)[kPitch]) {
  const int at = threadIdx.x % 8 * 8;
#pragma unroll
  for (int row = threadIdx.x / 8; row < kTile; row += kTileThreads / 8) {
    float x[8] = {};
    if (row < rows) load(row, c + at, x);
    *reinterpret_cast<float4*>(&to[row][at]) = make_float4(x[0], x[1], x[2], x[3]);
    *reinterpret_cast<float4*>(&to[row][at + 4]) = make_float4(x[4], x[5], x[6], x[7]);
  }
}

// sum += aᵀ b over kSteps rows of both.
template <int kSteps>
__device__ __forceinline__ void Multiply(const float (*a)[kPitch], const float (*b)[kPitch],
                                         float (&sum)[4][4]) {
  const int y = threadIdx.x / 16 * 4, x = threadIdx.x % 16 * 4;
#pragma unroll 8
  for (int k = 0; k < kSteps; ++k) {
    const float4 left = *reinterpret_cast<const float4*>(&a[k][y]);
    const float4 right = *reinterpret_cast<const float4*>(&b[k][x]);
    const float l[4] = {left.x, left.y, left.z, left.w};
    const float r[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(l[i], r[j], sum[i][j]);
    }
  }
}

// Two tiles of kDepth rows, or one of kTile rows.
union alignas(16) TileStage {
  float turned[2][kDepth][kPitch];
  float rows[kTile][kPitch];
};

// sum = product of two tiles of rows over `cols` columns. All threads have passed their last use of `stage`
// when this returns to them only after a further __syncthreads.
template <typename LoadA, typename LoadB>
__device__ __forceinline__ void ScoreProduct(const LoadA& a, int rows_a, const LoadB& b, int rows_b, int cols,
                                             TileStage& stage, float (&sum)[4][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = 0;
  }
  for (int c = 0; c < cols; c += kDepth) {
    __syncthreads();
    StageTurned(a, rows_a, c, stage.turned[0]);
    StageTurned(b, rows_b, c, stage.turned[1]);
    __syncthreads();
    Multiply<kDepth>(stage.turned[0], stage.turned[1], sum);
  }
}

// sum[n] += weightsᵀ times columns [first + n kTile, ..) of the rows that `load` reads, up to `cols`.
template <int kColumns, typename Load>
__device__ __forceinline__ void WeighRows(const float (*weights)[kPitch], const Load& load, int rows,
                                          int first, int cols, TileStage& stage,
                                          float (&sum)[kColumns][4][4]) {
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    if (first + n * kTile >= cols) continue;  // the same for all threads
    __syncthreads();
    StageRows(load, rows, first + n * kTile, stage.rows);
    __syncthreads();
    Multiply<kTile>(weights, stage.rows, sum[n]);
  }
}

// Writes sum[n] * factor to columns [first + n kTile, ..) of a row, up to `cols`; i is the thread's row.
template <int kColumns, typename T>
__device__ __forceinline__ void WriteColumns(const float (&sum)[kColumns][4][4], int i, float factor,
                                             int first, int cols, T* row) {
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int c = first + n * kTile + static_cast<int>(threadIdx.x) % 16 * 4 + j;
      if (c < cols) row[c] = FromFloat<T>(sum[n][i][j] * factor);
    }
  }
}

}  // namespace moebius::cuda
