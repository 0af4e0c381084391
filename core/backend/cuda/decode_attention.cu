#include <algorithm>

#include "core/backend/cuda/attention_tiles.cuh"
#include "core/backend/cuda/decode_attention.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kSplitKeys = 256;  // keys of a split, more once there would be more than kMaxSplits
constexpr int kMaxSplits = 32;
constexpr int kValueColumns = 256;  // a thread has four of them, for four heads
constexpr int kMaxColumns = 3;      // groups of them that a block holds; wider values are cut

// A DecodeBlock in fp32: as many of the value columns as it owns lie between kColumns * kValueColumns * pass
// and the next pass. Scores: a thread sums a quarter of the depth for four heads and four keys. Values: a
// thread sums all keys for four heads and kColumns times four columns.
template <typename T, int kColumns>
__global__ void __launch_bounds__(kTileThreads) DecodeKernel(const DecodeProblem<T> p, int pass) {
  __shared__ __align__(16) float queries[kDepth][kDecodeHeads];
  __shared__ __align__(16) float keys[kDepth][kPitch];
  __shared__ __align__(16) float quarters[4][kDecodeHeads][kPitch];
  __shared__ __align__(16) float weights[kDecodeKeys][kDecodeHeads];
  __shared__ float shrinks[kDecodeHeads];
  const DecodeBlock block(p);
  if (block.begin >= block.end) return;
  const int thread = threadIdx.x;
  const int quarter = thread / kTile, head4 = thread % kTile / 16 * 4, key4 = thread % 16 * 4;
  const int first_column = pass * kColumns * kValueColumns + thread % kTile * 4,
            value_head = thread / kTile * 4;
  const float scale = p.scale * kLog2E;
  const TileRows<const T> query_rows{
      p.q + (static_cast<int64_t>(blockIdx.z) * p.heads + block.first_head) * p.q_stride, p.q_stride, p.d,
      p.vector};
  const TileRows<const T> key_rows{p.k + block.first_row * p.k_stride + block.group * p.d, p.k_stride, p.d,
                                   p.vector};
  const T* values = p.v + block.first_row * p.v_stride + block.group * p.dv;
  float out[kColumns][4][4] = {};
  float max = -INFINITY, sum = 0;  // of head thread / 16
  for (int key = block.begin; key < block.end; key += kDecodeKeys) {
    const int count = min(kDecodeKeys, block.end - key);
    float score[4][4] = {};
    for (int c = 0; c < p.d; c += kDepth) {
      __syncthreads();
      StageTurned([&](int r, int at, float(&to)[8]) { Load8(key_rows, key + r, at, to); }, count, c, keys);
      if (thread < kDecodeHeads * kDepth / 8) {
        const int head = thread % kDecodeHeads, at = thread / kDecodeHeads * 8;
        float x[8] = {};
        if (head < block.heads) Load8(query_rows, head, c + at, x);
#pragma unroll
        for (int i = 0; i < 8; ++i) queries[at + i][head] = x[i];
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth / 4; ++k) {
        const float4 left = *reinterpret_cast<const float4*>(&queries[quarter * (kDepth / 4) + k][head4]);
        const float4 right = *reinterpret_cast<const float4*>(&keys[quarter * (kDepth / 4) + k][key4]);
        const float l[4] = {left.x, left.y, left.z, left.w}, r[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) score[i][j] = fmaf(l[i], r[j], score[i][j]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      *reinterpret_cast<float4*>(&quarters[quarter][head4 + i][key4]) =
          make_float4(score[i][0], score[i][1], score[i][2], score[i][3]);
    }
    __syncthreads();
    const int head = thread / 16;
    float row[4], most = max, total = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      row[j] = 0;
#pragma unroll
      for (int n = 0; n < 4; ++n) row[j] += quarters[n][head][key4 + j];
      if (key4 + j >= count) row[j] = -INFINITY;
      most = fmaxf(most, row[j]);
    }
#pragma unroll
    for (int step = 8; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
    const float shrink = exp2f((max - most) * scale);  // `most` is finite: a tile has a key
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float weight = exp2f((row[j] - most) * scale);
      weights[key4 + j][head] = weight;
      total += weight;
    }
#pragma unroll
    for (int step = 8; step > 0; step /= 2) total += __shfl_xor_sync(kAllLanes, total, step);
    max = most;
    sum = sum * shrink + total;
    if (thread % 16 == 0) shrinks[head] = shrink;
    __syncthreads();
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int c = first_column + n * kValueColumns;
      if (c >= p.dv) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) out[n][i][j] *= shrinks[value_head + i];
      }
      const T* value = values + key * p.v_stride + c;
#pragma unroll 4
      for (int k = 0; k < count; ++k, value += p.v_stride) {
        float x[4];
        if (p.vector && c + 4 <= p.dv) {
          const auto piece = *reinterpret_cast<const Vector<T, 4>*>(value);
#pragma unroll
          for (int j = 0; j < 4; ++j) x[j] = ToFloat(piece.at[j]);
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j) x[j] = c + j < p.dv ? ToFloat(value[j]) : 0.0f;
        }
        const float4 weight = *reinterpret_cast<const float4*>(&weights[k][value_head]);
        const float w[4] = {weight.x, weight.y, weight.z, weight.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) out[n][i][j] = fmaf(w[i], x[j], out[n][i][j]);
        }
      }
    }
  }
  if (pass == 0 && thread % 16 == 0 && thread / 16 < block.heads) {
    p.max_sums[block.first_part + thread / 16] = make_float2(max, sum);
  }
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (value_head + i >= block.heads) continue;
      float* to = p.out + (block.first_part + value_head + i) * p.dv;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int c = first_column + n * kValueColumns + j;
        if (c < p.dv) to[c] = out[n][i][j];
      }
    }
  }
}

// o = the splits' outputs under one maximum, in order, over their sum. A block owns one head of one sequence.
constexpr int kCombineThreads = 128;
template <typename T>
__global__ void __launch_bounds__(kCombineThreads)
    CombineKernel(const DecodeProblem<T> p, T* o, int64_t o_stride) {
  __shared__ float factors[kMaxSplits];
  const int64_t sequence = blockIdx.x / p.heads;
  const int head = blockIdx.x % p.heads;
  const int length = min(p.lengths[sequence], static_cast<int>(p.capacity));
  const int splits = length <= 0 ? 0 : min((length + p.split_keys - 1) / p.split_keys, p.splits);
  const int64_t first = sequence * p.splits * p.heads + head;
  if (threadIdx.x < kWarp) {  // lane s has split s
    const bool has = static_cast<int>(threadIdx.x) < splits;
    const float2 mine =
        has ? p.max_sums[first + static_cast<int64_t>(threadIdx.x) * p.heads] : make_float2(-INFINITY, 0);
    const float most = WarpMax(mine.x);
    const float factor = has ? exp2f((mine.x - most) * (p.scale * kLog2E)) : 0.0f;
    factors[threadIdx.x] = factor / WarpSum(mine.y * factor);
  }
  __syncthreads();
  T* to = o + static_cast<int64_t>(blockIdx.x) * o_stride;
  for (int c = threadIdx.x; c < p.dv; c += kCombineThreads) {
    float sum = 0;
#pragma unroll 4
    for (int s = 0; s < splits; ++s)
      sum = fmaf(factors[s], p.out[(first + static_cast<int64_t>(s) * p.heads) * p.dv + c], sum);
    to[c] = FromFloat<T>(sum);
  }
}

template <typename T>
bool InPieces(const TensorView& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && (x.stride * sizeof(T)) % 16 == 0;
}

template <typename T>
void DecodePlain(cudaStream_t stream, const DecodeProblem<T>& p, dim3 grid) {
  constexpr int kPassColumns = kMaxColumns * kValueColumns;
  if (p.dv <= kValueColumns) {
    DecodeKernel<T, 1><<<grid, kTileThreads, 0, stream>>>(p, 0);
    return;
  }
  for (int pass = 0; pass * kPassColumns < p.dv; ++pass) {
    DecodeKernel<T, kMaxColumns><<<grid, kTileThreads, 0, stream>>>(p, pass);
  }
}

}  // namespace
}  // namespace cuda

void CudaBackend::DecodeAttention(Stream& stream, const DecodeAttentionArgs& args) {
  using namespace cuda;  // NOLINT: this file's kernels
  const int64_t capacity = args.k.shape[1];
  if (args.q.elements() == 0 || capacity == 0) return;
  ForAct(args.q.dtype, [&](auto tag) {
    using T = decltype(tag);
    DecodeProblem<T> p{.q = Data<T>(args.q),
                       .k = Data<T>(args.k),
                       .v = Data<T>(args.v),
                       .lengths = Data<int32_t>(args.lengths),
                       .q_stride = args.q.stride,
                       .k_stride = args.k.stride,
                       .v_stride = args.v.stride,
                       .capacity = capacity,
                       .batch = static_cast<int>(args.q.shape[0]),
                       .heads = static_cast<int>(args.q.shape[1]),
                       .groups = static_cast<int>(args.k.cols() / args.q.cols()),
                       .d = static_cast<int>(args.q.cols()),
                       .dv = static_cast<int>(args.o.cols()),
                       .vector = InPieces<T>(args.q) && InPieces<T>(args.k) && InPieces<T>(args.v) &&
                                 (args.q.cols() * sizeof(T)) % 16 == 0 &&
                                 (args.o.cols() * sizeof(T)) % 16 == 0,
                       .scale = args.scale,
                       .splits = 0,
                       .split_keys = 0,
                       .out = nullptr,
                       .max_sums = nullptr};
    p.split_keys = static_cast<int>(
        CeilDiv(std::max<int64_t>(kSplitKeys, CeilDiv(capacity, kMaxSplits)), kDecodeKeys) * kDecodeKeys);
    p.splits = static_cast<int>(CeilDiv(capacity, p.split_keys));
    const int64_t parts = static_cast<int64_t>(p.batch) * p.splits * p.heads;
    p.max_sums =
        static_cast<float2*>(Scratch(parts * static_cast<int64_t>(sizeof(float2) + p.dv * sizeof(float))));
    p.out = reinterpret_cast<float*>(p.max_sums + parts);
    const int64_t chunks = CeilDiv(p.heads / p.groups, kDecodeHeads);
    const dim3 grid(p.splits, static_cast<unsigned>(p.groups * chunks), p.batch);
    bool done = false;
    if constexpr (std::is_same_v<T, Bf16>) {
      const int64_t bytes = DecodeTensorBytes(p);
      const int64_t fixed = 4096;  // its static shared memory, and what the driver keeps
      done = bytes > 0 && bytes + fixed <= static_cast<int64_t>(properties_.sharedMemPerBlockOptin);
      if (done) DecodeByTensorCores(Raw(stream), p, grid);
    }
    if (!done) DecodePlain<T>(Raw(stream), p, grid);
    CombineKernel<T><<<static_cast<unsigned>(p.batch * p.heads), kCombineThreads, 0, Raw(stream)>>>(
        p, Data<T>(args.o), args.o.stride);
  });
  Launched("DecodeAttention");
}

}  // namespace moebius
