#include <algorithm>
#include <vector>

#include "core/backend/cuda/attention_fallback.h"
#include "core/backend/cuda/attention_tiles.cuh"

namespace moebius::cuda {
namespace {

constexpr int kMaxColumns = 4;  // products of kTile columns that a block holds; wider results take several

__device__ __forceinline__ float SumOf16(float x) {
#pragma unroll
  for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ __forceinline__ float MaxOf16(float x) {
#pragma unroll
  for (int step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// o = softmax(scale q kᵀ) v with a running maximum and sum (Milakov and Gimelshein, 2018), lse = scale max +
// log(sum). A block owns a tile of queries (blockIdx.x) of one head (y) and kColumns * kTile columns of o
// (z); it walks over the tiles of keys up to its own. The 16 threads of one y share the statistics of four
// queries.
template <typename T, int kColumns>
__global__ void __launch_bounds__(kTileThreads, 2) ForwardKernel(const AttentionProblem<T> p) {
  __shared__ TileStage stage;
  __shared__ __align__(16) float weights[kTile][kPitch];  // [key][query]
  const SequenceTile tile = p.tiles[blockIdx.x];
  const int head = blockIdx.y, group = head / (p.heads / p.groups),
            first_column = blockIdx.z * kColumns * kTile;
  const int y = threadIdx.x / 16 * 4, x = threadIdx.x % 16 * 4;
  const float scale = p.scale * kLog2E;
  const int64_t first_query = static_cast<int64_t>(tile.start) + tile.first;
  const auto queries = [&](int r, int c, float(&out)[8]) {
    Load8(p.q, (first_query + r) * p.heads + head, c, out);
  };
  float out[kColumns][4][4] = {};
  float max[4], sum[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    max[i] = -INFINITY;
    sum[i] = 0;
  }
  for (int key = 0; key <= tile.first; key += kTile) {
    const int64_t first_key = static_cast<int64_t>(tile.start) + key;
    const int rows = tile.length - key;
    const auto keys = [&](int r, int c, float(&to)[8]) { LoadKey8(p, first_key + r, group, c, to); };
    const auto values = [&](int r, int c, float(&to)[8]) {
      Load8(p.v, (first_key + r) * p.groups + group, c, to);
    };
    float score[4][4];
    ScoreProduct(queries, tile.length - tile.first, keys, rows, p.d, stage, score);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float most = max[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool seen = key + x + j <= tile.first + y + i && x + j < rows;
        score[i][j] = seen ? score[i][j] : -INFINITY;
        most = fmaxf(most, score[i][j]);
      }
      most = MaxOf16(most);  // finite: every query sees the first key
      const float shrink = exp2f((max[i] - most) * scale);
      float total = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        score[i][j] = exp2f((score[i][j] - most) * scale);
        total += score[i][j];
      }
      max[i] = most;
      sum[i] = sum[i] * shrink + SumOf16(total);
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) out[n][i][j] *= shrink;
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      *reinterpret_cast<float4*>(&weights[x + j][y]) =
          make_float4(score[0][j], score[1][j], score[2][j], score[3][j]);
    }
    WeighRows(weights, values, rows, first_column, p.dv, stage, out);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (tile.first + y + i >= tile.length) continue;
    const int64_t token = first_query + y + i;
    WriteColumns(out, i, 1 / sum[i], first_column, p.dv, p.o.data + (token * p.heads + head) * p.o.stride);
    if (x == 0 && blockIdx.z == 0) p.lse[head * p.tokens + token] = max[i] * p.scale + logf(sum[i]);
  }
}

template <typename T>
struct BackwardProblem {
  AttentionProblem<T> forward;  // its tiles: of queries
  const SequenceTile* key_tiles;
  TileRows<T> d_o, dq, dk, dk_shared, dv;
  float* delta;      // [heads, tokens]
  float* of_shared;  // [groups, tokens, dr]: each key head's share of dk_shared
};

// delta = sum over columns of d_o * o. A warp owns the row of one token and head.
template <typename T>
__global__ void __launch_bounds__(kTileThreads) DeltaKernel(const BackwardProblem<T> p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kTileThreads / kWarp) + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= p.forward.tokens * p.forward.heads) return;
  float sum = 0;
  for (int c = lane * 8; c < p.forward.dv; c += kWarp * 8) {
    float o[8], d_o[8];
    Load8(p.forward.o, row, c, o);
    Load8(p.d_o, row, c, d_o);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(o[i], d_o[i], sum);
  }
  sum = WarpSum(sum);
  if (lane == 0) p.delta[row % p.forward.heads * p.forward.tokens + row / p.forward.heads] = sum;
}

// The probabilities and the gradient of the scores of one pair of tiles, the thread's 4 x 4 of them
// (FlashAttention-2, algorithm 2): P = exp(scale S - lse), dS = scale P (dO Vᵀ - delta).
template <typename T>
struct ScoreGradient {
  float probability[4][4];
  float gradient[4][4];

  __device__ __forceinline__ ScoreGradient(const BackwardProblem<T>& b, int start, int length, int query,
                                           int key, int head, int group, TileStage& stage) {
    const AttentionProblem<T>& p = b.forward;
    const int y = threadIdx.x / 16 * 4, x = threadIdx.x % 16 * 4;
    const int64_t first_query = static_cast<int64_t>(start) + query,
                  first_key = static_cast<int64_t>(start) + key;
    const auto queries = [&](int r, int c, float(&to)[8]) {
      Load8(p.q, (first_query + r) * p.heads + head, c, to);
    };
    const auto keys = [&](int r, int c, float(&to)[8]) { LoadKey8(p, first_key + r, group, c, to); };
    const auto d_outs = [&](int r, int c, float(&to)[8]) {
      Load8(b.d_o, (first_query + r) * p.heads + head, c, to);
    };
    const auto values = [&](int r, int c, float(&to)[8]) {
      Load8(p.v, (first_key + r) * p.groups + group, c, to);
    };
    ScoreProduct(queries, length - query, keys, length - key, p.d, stage, probability);
    ScoreProduct(d_outs, length - query, values, length - key, p.dv, stage, gradient);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool is_query = query + y + i < length;
      const int64_t at = head * p.tokens + first_query + y + i;
      const float lse = is_query ? p.lse[at] * kLog2E : 0.0f;
      const float delta = is_query ? b.delta[at] : 0.0f;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool seen = is_query && key + x + j <= query + y + i;
        probability[i][j] = seen ? exp2f(probability[i][j] * (p.scale * kLog2E) - lse) : 0.0f;
        gradient[i][j] = seen ? probability[i][j] * (gradient[i][j] - delta) * p.scale : 0.0f;
      }
    }
  }
};

// dq = dS k. A block owns a tile of queries (x) of one head (y) and kColumns * kTile columns (z).
template <typename T, int kColumns>
__global__ void __launch_bounds__(kTileThreads, 2) QueryGradientKernel(const BackwardProblem<T> b) {
  __shared__ TileStage stage;
  __shared__ __align__(16) float weights[kTile][kPitch];  // [key][query]
  const AttentionProblem<T>& p = b.forward;
  const SequenceTile tile = p.tiles[blockIdx.x];
  const int head = blockIdx.y, group = head / (p.heads / p.groups),
            first_column = blockIdx.z * kColumns * kTile;
  const int y = threadIdx.x / 16 * 4, x = threadIdx.x % 16 * 4;
  float out[kColumns][4][4] = {};
  for (int key = 0; key <= tile.first; key += kTile) {
    const ScoreGradient<T> s(b, tile.start, tile.length, tile.first, key, head, group, stage);
    const auto keys = [&](int r, int c, float(&to)[8]) {
      LoadKey8(p, static_cast<int64_t>(tile.start) + key + r, group, c, to);
    };
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      *reinterpret_cast<float4*>(&weights[x + j][y]) =
          make_float4(s.gradient[0][j], s.gradient[1][j], s.gradient[2][j], s.gradient[3][j]);
    }
    WeighRows(weights, keys, tile.length - key, first_column, p.d, stage, out);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (tile.first + y + i >= tile.length) continue;
    const int64_t token = static_cast<int64_t>(tile.start) + tile.first + y + i;
    WriteColumns(out, i, 1, first_column, p.d, b.dq.data + (token * p.heads + head) * b.dq.stride);
  }
}

// dk = dSᵀ q and dv = Pᵀ d_o, summed over the query heads of a key head in order. A block owns a tile of keys
// (x) of one key head (y) and kColumns * kTile columns of both (z).
template <typename T, int kColumns>
__global__ void __launch_bounds__(kTileThreads, 1) KeyGradientKernel(const BackwardProblem<T> b) {
  __shared__ TileStage stage;
  __shared__ __align__(16) float weights[kTile][kPitch];  // [query][key]
  const AttentionProblem<T>& p = b.forward;
  const SequenceTile tile = b.key_tiles[blockIdx.x];
  const int group = blockIdx.y, per_group = p.heads / p.groups, first_column = blockIdx.z * kColumns * kTile;
  const int y = threadIdx.x / 16 * 4, x = threadIdx.x % 16 * 4;
  float dk[kColumns][4][4] = {};
  float dv[kColumns][4][4] = {};
  const auto put = [&](const float(&of)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      *reinterpret_cast<float4*>(&weights[y + i][x]) = make_float4(of[i][0], of[i][1], of[i][2], of[i][3]);
    }
  };
  for (int head = group * per_group; head < (group + 1) * per_group; ++head) {
    for (int query = tile.first; query < tile.length; query += kTile) {
      const ScoreGradient<T> s(b, tile.start, tile.length, query, tile.first, head, group, stage);
      const int64_t first_query = static_cast<int64_t>(tile.start) + query;
      const auto queries = [&](int r, int c, float(&to)[8]) {
        Load8(p.q, (first_query + r) * p.heads + head, c, to);
      };
      const auto d_outs = [&](int r, int c, float(&to)[8]) {
        Load8(b.d_o, (first_query + r) * p.heads + head, c, to);
      };
      put(s.probability);
      WeighRows(weights, d_outs, tile.length - query, first_column, p.dv, stage, dv);
      __syncthreads();
      put(s.gradient);
      WeighRows(weights, queries, tile.length - query, first_column, p.d, stage, dk);
    }
  }
  const int dr = p.d - p.dk;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (tile.first + y + i >= tile.length) continue;
    const int64_t token = static_cast<int64_t>(tile.start) + tile.first + y + i;
    const int64_t row = token * p.groups + group;
    WriteColumns(dv, i, 1, first_column, p.dv, b.dv.data + row * b.dv.stride);
    WriteColumns(dk, i, 1, first_column, p.dk, b.dk.data + row * b.dk.stride);
    if (dr == 0) continue;
    float* shared = b.of_shared + (group * p.tokens + token) * dr;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int c = first_column + n * kTile + x + j - p.dk;
        if (c >= 0 && c < dr) shared[c] = dk[n][i][j];
      }
    }
  }
}

// dk_shared = the sum over key heads in order. A thread owns one element.
template <typename T>
__global__ void __launch_bounds__(kTileThreads) SharedGradientKernel(const BackwardProblem<T> b) {
  const int64_t dr = b.dk_shared.cols, elements = b.forward.tokens * dr;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kTileThreads + threadIdx.x; i < elements;
       i += static_cast<int64_t>(gridDim.x) * kTileThreads) {
    float sum = 0;
    for (int group = 0; group < b.forward.groups; ++group) sum += b.of_shared[group * elements + i];
    b.dk_shared.data[i / dr * b.dk_shared.stride + i % dr] = FromFloat<T>(sum);
  }
}

// The tiles of all sequences, those with the most to do first: `of_keys` says whether a tile's work grows
// with what follows it or with what lies before it.
std::vector<SequenceTile> Tiles(const AttentionArgs& args, bool of_keys) {
  std::vector<SequenceTile> tiles;
  for (size_t s = 0; s + 1 < args.sequence_starts.size(); ++s) {
    const int32_t start = args.sequence_starts[s], length = args.sequence_starts[s + 1] - start;
    for (int32_t first = 0; first < length; first += kTile) tiles.push_back({start, length, first});
  }
  const auto work = [&](const SequenceTile& t) { return of_keys ? t.length - t.first : t.first; };
  std::stable_sort(tiles.begin(), tiles.end(),
                   [&](const SequenceTile& a, const SequenceTile& b) { return work(a) > work(b); });
  return tiles;
}

int64_t TileBytes(const AttentionArgs& args) {
  const int64_t tiles = args.q.shape[0] / kTile + static_cast<int64_t>(args.sequence_starts.size());
  return CeilDiv(tiles * static_cast<int64_t>(sizeof(SequenceTile)), 256) * 256;
}

const SequenceTile* Upload(cudaStream_t stream, const std::vector<SequenceTile>& tiles, void* to) {
  CUDA_OK(
      cudaMemcpyAsync(to, tiles.data(), tiles.size() * sizeof(SequenceTile), cudaMemcpyHostToDevice, stream));
  return static_cast<const SequenceTile*>(to);
}

template <typename T>
AttentionProblem<T> Problem(const AttentionArgs& args) {
  const int dk = static_cast<int>(args.k.cols());
  return {.q = RowsOf<T>(args.q),
          .k = RowsOf<T>(args.k),
          .k_shared = RowsOf<T>(args.k_shared),
          .v = RowsOf<T>(args.v),
          .o = RowsOf<T>(args.o),
          .lse = Data<float>(args.lse),
          .tiles = nullptr,
          .tokens = args.q.shape[0],
          .heads = static_cast<int>(args.q.shape[1]),
          .groups = static_cast<int>(args.k.shape[1]),
          .d = static_cast<int>(args.q.cols()),
          .dk = dk,
          .dv = static_cast<int>(args.v.cols()),
          .scale = args.scale};
}

// Calls f with the number of products of kTile columns that hold `cols` columns, at most kMaxColumns.
template <typename F>
void ForColumns(int cols, const F& f) {
  switch (std::min<int64_t>(CeilDiv(cols, kTile), kMaxColumns)) {
    case 0:
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    default:
      return f(std::integral_constant<int, kMaxColumns>());
  }
}

unsigned Passes(int cols, int columns) { return static_cast<unsigned>(CeilDiv(cols, columns * kTile)); }

}  // namespace

int64_t OwnAttentionScratch(const AttentionArgs& args) { return TileBytes(args); }

int64_t OwnAttentionBackwardScratch(const AttentionBackwardArgs& args) {
  const AttentionArgs& f = args.forward;
  const int64_t dr = f.k_shared ? f.k_shared.cols() : 0;
  const int64_t floats = f.q.shape[0] * (f.q.shape[1] + f.k.shape[1] * dr);
  return 2 * TileBytes(f) + floats * static_cast<int64_t>(sizeof(float));
}

void OwnAttention(cudaStream_t stream, const AttentionArgs& args, void* scratch) {
  const std::vector<SequenceTile> tiles = Tiles(args, false);
  if (tiles.empty()) return;
  ForAct(args.q.dtype, [&](auto tag) {
    using T = decltype(tag);
    AttentionProblem<T> p = Problem<T>(args);
    p.tiles = Upload(stream, tiles, scratch);
    ForColumns(p.dv, [&](auto columns) {
      constexpr int kColumns = decltype(columns)::value;
      const dim3 grid(static_cast<unsigned>(tiles.size()), p.heads, Passes(p.dv, kColumns));
      ForwardKernel<T, kColumns><<<grid, kTileThreads, 0, stream>>>(p);
    });
  });
  Launched("Attention");
}

void OwnAttentionBackward(cudaStream_t stream, const AttentionBackwardArgs& args, void* scratch) {
  const std::vector<SequenceTile> queries = Tiles(args.forward, false), keys = Tiles(args.forward, true);
  if (queries.empty()) return;
  const int64_t tile_bytes = TileBytes(args.forward);
  char* memory = static_cast<char*>(scratch);
  ForAct(args.forward.q.dtype, [&](auto tag) {
    using T = decltype(tag);
    BackwardProblem<T> b{.forward = Problem<T>(args.forward),
                         .key_tiles = Upload(stream, keys, memory + tile_bytes),
                         .d_o = RowsOf<T>(args.d_o),
                         .dq = RowsOf<T>(args.dq),
                         .dk = RowsOf<T>(args.dk),
                         .dk_shared = RowsOf<T>(args.dk_shared),
                         .dv = RowsOf<T>(args.dv),
                         .delta = reinterpret_cast<float*>(memory + 2 * tile_bytes),
                         .of_shared = nullptr};
    AttentionProblem<T>& p = b.forward;
    p.tiles = Upload(stream, queries, memory);
    b.of_shared = b.delta + p.heads * p.tokens;
    const unsigned rows_per_block = kTileThreads / kWarp;
    DeltaKernel<T>
        <<<static_cast<unsigned>(CeilDiv(p.tokens * p.heads, rows_per_block)), kTileThreads, 0, stream>>>(b);
    ForColumns(p.d, [&](auto columns) {
      constexpr int kColumns = decltype(columns)::value;
      const dim3 grid(static_cast<unsigned>(queries.size()), p.heads, Passes(p.d, kColumns));
      QueryGradientKernel<T, kColumns><<<grid, kTileThreads, 0, stream>>>(b);
    });
    const int widest = std::max(p.d, p.dv);
    ForColumns(widest, [&](auto columns) {
      constexpr int kColumns = decltype(columns)::value;
      const dim3 grid(static_cast<unsigned>(keys.size()), p.groups, Passes(widest, kColumns));
      KeyGradientKernel<T, kColumns><<<grid, kTileThreads, 0, stream>>>(b);
    });
    if (args.dk_shared) {
      const int64_t elements = p.tokens * b.dk_shared.cols;
      const unsigned blocks =
          static_cast<unsigned>(std::min<int64_t>(CeilDiv(elements, kTileThreads), 65535));
      SharedGradientKernel<T><<<blocks, kTileThreads, 0, stream>>>(b);
    }
  });
  Launched("AttentionBackward");
}

}  // namespace moebius::cuda
