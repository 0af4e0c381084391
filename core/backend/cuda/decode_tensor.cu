// Decode attention on tensor cores: bf16 rows of 16-byte pieces.
#include "core/backend/cuda/decode_attention.cuh"
#include "core/backend/cuda/mma.cuh"

namespace moebius::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kPad = 8;  // elements between rows in shared memory, so that eight rows lie in different banks
constexpr int kWeightPitch = kDecodeKeys + kPad;
constexpr int kMaxValueTiles = 8;  // of 16 columns of v, a warp

__host__ __device__ constexpr int PitchOf(int columns) { return (columns + 15) / 16 * 16 + kPad; }

bool ValuesLieInKeys(const DecodeProblem<Bf16>& p) {
  return p.groups == 1 && p.v == p.k && p.v_stride == p.k_stride && p.dv <= p.d;
}

// `count` rows of `columns` (kDecodeKeys in all, zeros after them) to shared memory, in the background. A
// warp copies a row.
__device__ __forceinline__ void CopyRows(const Bf16* from, int64_t stride, int count, int rows, int columns,
                                         Bf16* to, int pitch) {
  for (int row = threadIdx.x / kWarp; row < rows; row += kWarps) {
    const Bf16* source = from + min(row, count - 1) * stride;
    for (int c = threadIdx.x % kWarp * 8; c < columns; c += kWarp * 8) {
      CopyAsync16(to + row * pitch + c, source + c, row < count);
    }
  }
}

// Zeroes what pads the columns to a multiple of 16.
__device__ __forceinline__ void ZeroPad(Bf16* tile, int rows, int columns, int pitch) {
  if (columns % 16 == 0) return;
  for (int row = threadIdx.x; row < rows; row += kThreads) {
    *reinterpret_cast<uint4*>(tile + row * pitch + columns) = make_uint4(0, 0, 0, 0);  // columns % 8 == 0
  }
}

// A block owns a DecodeBlock, the heads as 16 rows of the products. Warp w has the scores of keys 16 w .. 16
// w + 15 of each tile and columns 16 (w + 4 i) .. + 15 of the output. Statistics are per row, in every warp
// alike.
template <int kValueTiles>
__global__ void __launch_bounds__(kThreads)
    DecodeTensorKernel(const DecodeProblem<Bf16> p, bool values_in_keys) {
  extern __shared__ uint4 memory[];
  __shared__ float of_warps[kWarps][kDecodeHeads];
  __shared__ __align__(16) Bf16 weights[kDecodeHeads * kWeightPitch];
  const DecodeBlock block(p);
  if (block.begin >= block.end) return;
  const int pitch = PitchOf(p.d), value_pitch = values_in_keys ? pitch : PitchOf(p.dv);
  Bf16* queries = reinterpret_cast<Bf16*>(memory);
  Bf16* keys = queries + kDecodeHeads * pitch;
  Bf16* values = values_in_keys ? keys : keys + kDecodeKeys * pitch;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int row = lane / 4, column = lane % 4 * 2;
  const float scale = p.scale * 1.4426950408889634f;

  ZeroPad(queries, kDecodeHeads, p.d, pitch);
  ZeroPad(keys, kDecodeKeys, p.d, pitch);
  if (!values_in_keys) ZeroPad(values, kDecodeKeys, p.dv, value_pitch);
  CopyRows(p.q + (static_cast<int64_t>(blockIdx.z) * p.heads + block.first_head) * p.q_stride, p.q_stride,
           block.heads, kDecodeHeads, p.d, queries, pitch);

  float out[kValueTiles][2][4] = {};
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this thread's scores
  for (int key = block.begin; key < block.end; key += kDecodeKeys) {
    const int count = min(kDecodeKeys, block.end - key);
    __syncthreads();  // the previous tile has been used
    CopyRows(p.k + (block.first_row + key) * p.k_stride + block.group * p.d, p.k_stride, count, kDecodeKeys,
             p.d, keys, pitch);
    CommitCopies();
    if (!values_in_keys) {
      CopyRows(p.v + (block.first_row + key) * p.v_stride + block.group * p.dv, p.v_stride, count,
               kDecodeKeys, p.dv, values, value_pitch);
    }
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();

    float score[2][4] = {};
    for (int c = 0; c < p.d; c += 16) {
      unsigned left[4], right[4];
      LoadLeft(queries + c, pitch, left);
      LoadRight(keys + warp * 16 * pitch + c, pitch, right);
      MultiplyAdd(left, right[0], right[1], score[0]);
      MultiplyAdd(left, right[2], right[3], score[1]);
    }
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (warp * 16 + n * 8 + column + i % 2 >= count) score[n][i] = -INFINITY;
        most[i / 2] = fmaxf(most[i / 2], score[n][i]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      most[r] = fmaxf(most[r], __shfl_xor_sync(kAllLanes, most[r], 1));
      most[r] = fmaxf(most[r], __shfl_xor_sync(kAllLanes, most[r], 2));
      if (lane % 4 == 0) of_warps[warp][row + 8 * r] = most[r];
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float all = max[r];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) all = fmaxf(all, of_warps[w][row + 8 * r]);
      const float shrink = exp2f((max[r] - all) * scale);  // `all` is finite: a tile has a key
      max[r] = all;
      sum[r] *= shrink;
#pragma unroll
      for (int t = 0; t < kValueTiles; ++t) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          out[t][n][2 * r] *= shrink;
          out[t][n][2 * r + 1] *= shrink;
        }
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float low = exp2f((score[n][2 * r] - all) * scale),
                    high = exp2f((score[n][2 * r + 1] - all) * scale);
        sum[r] += low + high;
        *reinterpret_cast<unsigned*>(weights + (row + 8 * r) * kWeightPitch + warp * 16 + n * 8 + column) =
            PackPair(low, high);
      }
    }
    WaitForCopies<0>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDecodeKeys; k += 16) {
      unsigned left[4];
      LoadLeft(weights + k, kWeightPitch, left);
#pragma unroll
      for (int t = 0; t < kValueTiles; ++t) {
        const int c = (warp + t * kWarps) * 16;
        if (c >= p.dv) continue;
        unsigned right[4];
        LoadRightTurned(values + k * value_pitch + c, value_pitch, right);
        MultiplyAdd(left, right[0], right[1], out[t][0]);
        MultiplyAdd(left, right[2], right[3], out[t][1]);
      }
    }
  }

  __syncthreads();  // of_warps is used again
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
    sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    if (lane % 4 == 0) of_warps[warp][row + 8 * r] = sum[r];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = row + 8 * r;
    if (head >= block.heads) continue;
    if (warp == 0 && lane % 4 == 0) {
      float total = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += of_warps[w][head];
      p.max_sums[block.first_part + head] = make_float2(max[r], total);
    }
    float* to = p.out + (block.first_part + head) * p.dv;
#pragma unroll
    for (int t = 0; t < kValueTiles; ++t) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int c = (warp + t * kWarps) * 16 + n * 8 + column;  // even, and so is dv
        if (c < p.dv)
          *reinterpret_cast<float2*>(to + c) = make_float2(out[t][n][2 * r], out[t][n][2 * r + 1]);
      }
    }
  }
}

template <int kValueTiles>
void Launch(cudaStream_t stream, const DecodeProblem<Bf16>& p, dim3 grid) {
  const int bytes = static_cast<int>(DecodeTensorBytes(p));
  AllowShared(DecodeTensorKernel<kValueTiles>, bytes);
  DecodeTensorKernel<kValueTiles><<<grid, kThreads, bytes, stream>>>(p, ValuesLieInKeys(p));
}

}  // namespace

int64_t DecodeTensorBytes(const DecodeProblem<Bf16>& p) {
  if (!p.vector || p.d % 8 != 0 || p.dv % 8 != 0 || p.dv > kMaxValueTiles * kWarps * 16) return 0;
  int64_t elements = static_cast<int64_t>(kDecodeHeads + kDecodeKeys) * PitchOf(p.d);
  if (!ValuesLieInKeys(p)) elements += static_cast<int64_t>(kDecodeKeys) * PitchOf(p.dv);
  return elements * static_cast<int64_t>(sizeof(Bf16));
}

void DecodeByTensorCores(cudaStream_t stream, const DecodeProblem<Bf16>& p, dim3 grid) {
  const int64_t tiles = CeilDiv(p.dv, kWarps * 16);
  if (tiles <= 1) {
    Launch<1>(stream, p, grid);
  } else if (tiles <= 2) {
    Launch<2>(stream, p, grid);
  } else if (tiles <= 4) {
    Launch<4>(stream, p, grid);
  } else {
    Launch<kMaxValueTiles>(stream, p, grid);
  }
}

}  // namespace moebius::cuda
