// The losses of the router: balance per sequence and z. Counts are integers, so their atomics give the same
// result in any order; everything else is summed in a fixed order.
#include <math_constants.h>

#include <algorithm>
#include <vector>

#include "core/backend/cuda/double_sums.cuh"
#include "core/backend/cuda/top_k.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kPiece = 64;  // tokens, all of one sequence
constexpr int kPieceWarps = 8;
constexpr int kPieceThreads = kPieceWarps * kWarp;

// Sequences cut into pieces. On the device: begin and end of each piece's tokens, then, for each sequence
// (and once more at the end), its first piece, then sequence_starts.
struct Pieces {
  explicit Pieces(std::span<const int32_t> starts) {
    std::vector<int32_t> first;
    for (size_t s = 0; s + 1 < starts.size(); ++s) {
      first.push_back(static_cast<int32_t>(table.size() / 2));
      for (int32_t begin = starts[s]; begin < starts[s + 1]; begin += kPiece) {
        table.push_back(begin);
        table.push_back(std::min(begin + kPiece, starts[s + 1]));
      }
    }
    count = static_cast<int64_t>(table.size() / 2);
    first.push_back(static_cast<int32_t>(count));
    table.insert(table.end(), first.begin(), first.end());
    table.insert(table.end(), starts.begin(), starts.end());
  }
  std::vector<int32_t> table;
  int64_t count = 0;
};

struct PieceKernelArgs {
  const float* scores;
  int64_t scores_stride;
  const int32_t* experts;  // null: the top K of the scores
  int64_t experts_stride;
  int num_experts;
  int top_k;
  const int32_t* pieces;
  float* shares;    // = [pieces, E]
  int32_t* counts;  // = [pieces, E]
};

// shares[piece, e] = sum over the piece's tokens of scores_e / sum scores; counts[piece, e] = how many of
// them count e. A block owns a piece, a warp every eighth of its tokens.
template <int kWidth>
__global__ void __launch_bounds__(kPieceThreads) PieceKernel(PieceKernelArgs args) {
  __shared__ float sums[kPieceWarps][kWarp * kWidth];
  __shared__ int32_t counts[kWarp * kWidth];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, n = args.num_experts;
  const int64_t piece = blockIdx.x;
  for (int e = threadIdx.x; e < n; e += kPieceThreads) counts[e] = 0;
  __syncthreads();

  float share[kWidth] = {};
  const int begin = args.pieces[2 * piece], end = args.pieces[2 * piece + 1];
  for (int64_t t = begin + warp; t < end; t += kPieceWarps) {
    float scores[kWidth], sum = 0;
    LoadRow(args.scores + t * args.scores_stride, n, lane, 0, scores);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum += scores[i];
    const float inverse = 1 / (WarpSum(sum) + 1e-20f);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) share[i] = fmaf(scores[i], inverse, share[i]);
    if (args.experts != nullptr) {
      for (int k = lane; k < args.top_k; k += kWarp) {
        atomicAdd(&counts[args.experts[t * args.experts_stride + k]], 1);
      }
    } else {
      unsigned keys[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int e = lane + kWarp * i;
        keys[i] = e < n ? RankKey(scores[i], e) : 0;
      }
      for (int k = 0; k < args.top_k; ++k) {
        const int best = TakeBest(keys, lane);
        if (lane == 0) atomicAdd(&counts[best], 1);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sums[warp][lane + kWarp * i] = share[i];
  __syncthreads();
  for (int e = threadIdx.x; e < n; e += kPieceThreads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kPieceWarps; ++w) sum += sums[w][e];
    args.shares[piece * n + e] = sum;
    args.counts[piece * n + e] = counts[e];
  }
}

struct SequenceKernelArgs {
  const float* shares;
  const int32_t* counts;
  const int32_t* first_piece;  // [sequences + 1]
  const int32_t* starts;       // [sequences + 1]
  int num_experts;
  int top_k;
  float* f;
  int64_t f_stride;
  float* losses;
};

constexpr int kSequenceWarps = 32;

// f_e = E / (K n) * count_e; loss = sum over e of f_e * share_e / n. A block owns a sequence: lanes own
// experts, 32 at a time, and every warp sums every 32nd piece; the first warp adds up what the warps found.
__global__ void __launch_bounds__(kSequenceWarps* kWarp) SequenceKernel(SequenceKernelArgs args) {
  __shared__ double shares[kSequenceWarps][kWarp];
  __shared__ int32_t counts[kSequenceWarps][kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, n = args.num_experts;
  const int64_t s = blockIdx.x;
  const int tokens = args.starts[s + 1] - args.starts[s];
  const int first = args.first_piece[s], last = args.first_piece[s + 1];
  double loss = 0;
  for (int base = 0; base < n; base += kWarp) {
    const int e = base + lane;
    double share = 0;
    int32_t count = 0;
    if (e < n) {
#pragma unroll 4
      for (int64_t p = first + warp; p < last; p += kSequenceWarps) {
        share += args.shares[p * n + e];
        count += args.counts[p * n + e];
      }
    }
    shares[warp][lane] = share;
    counts[warp][lane] = count;
    __syncthreads();
    if (warp == 0 && e < n) {
      share = 0;
      int64_t total = 0;
      for (int w = 0; w < kSequenceWarps; ++w) {
        share += shares[w][lane];
        total += counts[w][lane];
      }
      const float f = tokens == 0 ? 0
                                  : static_cast<float>(static_cast<double>(n) * static_cast<double>(total) /
                                                       (static_cast<double>(args.top_k) * tokens));
      args.f[s * args.f_stride + e] = f;
      if (tokens != 0) loss += f * share / tokens;
    }
    __syncthreads();
  }
  if (warp == 0) {
    loss = WarpSum(loss);
    if (lane == 0) args.losses[s] = static_cast<float>(loss);
  }
}

// sums[block] = sum over the block's 64 tokens of logsumexp(logits)²: a warp every eighth of them.
__global__ void __launch_bounds__(kPieceThreads)
    SquaredLogSumExpKernel(const float* logits, int64_t stride, int64_t tokens, int64_t n, double* sums) {
  __shared__ double shared[kPieceWarps];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kPiece;
  const int64_t end = begin + kPiece < tokens ? begin + kPiece : tokens;
  double squares = 0;
  for (int64_t t = begin + warp; t < end; t += kPieceWarps) {
    const float* row = logits + t * stride;
    float most = -CUDART_INF_F;
    for (int64_t e = lane; e < n; e += kWarp) most = fmaxf(most, row[e]);
    most = WarpMax(most);
    float sum = 0;
    for (int64_t e = lane; e < n; e += kWarp) sum += expf(row[e] - most);
    const double lse = static_cast<double>(most) + log(static_cast<double>(WarpSum(sum)));
    squares += lse * lse;
  }
  if (lane == 0) shared[warp] = squares;
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0;
    for (int w = 0; w < kPieceWarps; ++w) sum += shared[w];
    sums[blockIdx.x] = sum;
  }
}

// z = sum of n values, by one block.
__global__ void __launch_bounds__(kPieceThreads) SumKernel(const double* sums, int64_t n, float* z) {
  __shared__ double shared[kPieceWarps];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kPieceThreads) sum += sums[i];
  sum = BlockSum<kPieceThreads>(sum, shared);
  if (threadIdx.x == 0) *z = static_cast<float>(sum);
}

}  // namespace
}  // namespace cuda

void CudaBackend::Balance(Stream& stream, const BalanceArgs& args) {
  const int64_t experts = args.scores.cols();
  const int64_t sequences = static_cast<int64_t>(args.sequence_starts.size()) - 1;
  if (sequences == 0) return;
  const cuda::Pieces pieces(args.sequence_starts);
  const int64_t cells = pieces.count * experts;
  const int64_t table_bytes = static_cast<int64_t>(pieces.table.size() * sizeof(int32_t));
  char* scratch = static_cast<char*>(Scratch(2 * cells * sizeof(float) + table_bytes));
  float* shares = reinterpret_cast<float*>(scratch);
  int32_t* counts = reinterpret_cast<int32_t*>(shares + cells);
  int32_t* table = counts + cells;
  CUDA_OK(
      cudaMemcpyAsync(table, pieces.table.data(), table_bytes, cudaMemcpyHostToDevice, cuda::Raw(stream)));
  if (pieces.count > 0) {
    const cuda::PieceKernelArgs kernel{.scores = cuda::Data<const float>(args.scores),
                                       .scores_stride = args.scores.stride,
                                       .experts = cuda::Data<const int32_t>(args.experts),
                                       .experts_stride = args.experts.stride,
                                       .num_experts = static_cast<int>(experts),
                                       .top_k = static_cast<int>(args.top_k),
                                       .pieces = table,
                                       .shares = shares,
                                       .counts = counts};
    cuda::ForWidth(experts, [&](auto width) {
      cuda::PieceKernel<decltype(width)::value>
          <<<static_cast<unsigned>(pieces.count), cuda::kPieceThreads, 0, cuda::Raw(stream)>>>(kernel);
    });
    cuda::Launched("Balance (pieces)");
  }
  const int32_t* first_piece = table + 2 * pieces.count;
  const cuda::SequenceKernelArgs kernel{.shares = shares,
                                        .counts = counts,
                                        .first_piece = first_piece,
                                        .starts = first_piece + sequences + 1,
                                        .num_experts = static_cast<int>(experts),
                                        .top_k = static_cast<int>(args.top_k),
                                        .f = cuda::Data<float>(args.f),
                                        .f_stride = args.f.stride,
                                        .losses = cuda::Data<float>(args.losses)};
  cuda::SequenceKernel<<<static_cast<unsigned>(sequences), cuda::kSequenceWarps * cuda::kWarp, 0,
                         cuda::Raw(stream)>>>(kernel);
  cuda::Launched("Balance (sequences)");
}

void CudaBackend::RouterZ(Stream& stream, const RouterZArgs& args) {
  const int64_t tokens = args.logits.rows();
  const int64_t blocks = cuda::CeilDiv(tokens, cuda::kPiece);
  double* sums = static_cast<double*>(Scratch(blocks * sizeof(double)));
  if (blocks > 0) {
    cuda::
        SquaredLogSumExpKernel<<<static_cast<unsigned>(blocks), cuda::kPieceThreads, 0, cuda::Raw(stream)>>>(
            cuda::Data<const float>(args.logits), args.logits.stride, tokens, args.logits.cols(), sums);
    cuda::Launched("RouterZ");
  }
  cuda::SumKernel<<<1, cuda::kPieceThreads, 0, cuda::Raw(stream)>>>(sums, blocks, cuda::Data<float>(args.z));
  cuda::Launched("RouterZ (sum)");
}

}  // namespace moebius
