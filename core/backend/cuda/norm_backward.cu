#include "core/backend/cuda/row_ring.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kMaxThreads = 512;

// The views of a call: base pointers (null where not given) and row strides in elements.
template <typename T>
struct NormBackwardRows {
  const T *x, *dy, *residual;
  T* dx;
  const float *gain, *rstd;
  int64_t x_stride, dy_stride, residual_stride, dx_stride, rows;
  int n;
};

// With h = x * rstd and g = dy * gain: d = rstd * (g - h * mean(g h)) + residual (zeros where there is none).
template <int N, typename T>
__device__ __forceinline__ void Gradient(const Piece<T, N>& x, const Piece<T, N>& dy,
                                         const Piece<T, N>& residual, const Piece<float, N>& gain, float rstd,
                                         float mean, float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) d[i] = fmaf(fmaf(-x[i] * rstd, mean, dy[i] * gain[i]), rstd, residual[i]);
}

// dx as above; partial [blocks, n] = a block's sum of dy * h over its rows. Blocks, teams and threads own
// what they own in Norm (norm.cu); a thread keeps its columns' dgain, the teams of a block add theirs up in
// shared memory, where the gain lies too.
template <typename T, int kPieces, bool kWhole>
__global__ void __launch_bounds__(kMaxThreads) NormBackward(const NormBackwardRows<T> a, float* partial) {
  using Ring = RowRing<T, kPieces, kWhole>;
  constexpr int N = kVector<T>;
  __shared__ TeamSums sums;
  extern __shared__ uint4 memory[];  // gain [width] f32, zeros beyond n; the ring, later the teams' dgain
  const int width = static_cast<int>(blockDim.x) * kPieces * N;
  float* gain = reinterpret_cast<float*>(memory);
  const bool has_residual = a.residual != nullptr;
  Ring ring(memory + width / 4, has_residual ? 3 : 2);
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  int column[kPieces];
  float dgain[kPieces][N] = {};
#pragma unroll
  for (int k = 0; k < kPieces; ++k) column[k] = static_cast<int>(threadIdx.x + k * blockDim.x) * N;
  const auto start = [&](int64_t row, int stage) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int left = row < a.rows ? a.n - column[k] : 0;
      ring.Start(stage, 0, k, a.x + row * a.x_stride + column[k], left);
      ring.Start(stage, 1, k, a.dy + row * a.dy_stride + column[k], left);
      if (has_residual) ring.Start(stage, 2, k, a.residual + row * a.residual_stride + column[k], left);
    }
    ring.Commit();
  };
  const int64_t step = int64_t{gridDim.x} * blockDim.y;
  const int64_t first = int64_t{blockIdx.x} * blockDim.y;
  for (int stage = 0; stage < Ring::kStages - 1; ++stage) start(first + stage * step + threadIdx.y, stage);
  for (int c = thread; c < width; c += threads) gain[c] = c < a.n ? a.gain[c] : 0;
  sums.Clear();  // and the gain is there
  const auto rstd_of = [&](int64_t row) { return row < a.rows ? a.rstd[row] : 0; };
  float next_rstd = rstd_of(first + threadIdx.y);
  int stage = 0, turn = 0;
  for (int64_t base = first; base < a.rows; base += step) {
    const int64_t row = base + threadIdx.y;
    const bool there = row < a.rows;
    start(row + (Ring::kStages - 1) * step, stage == 0 ? Ring::kStages - 1 : stage - 1);
    const float rstd = next_rstd;
    next_rstd = rstd_of(row + step);
    ring.Wait();
    Piece<T, N> x[kPieces], dy[kPieces];
    float dot = 0;
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      x[k] = ring.Get(stage, 0, k);
      dy[k] = ring.Get(stage, 1, k);
      const auto g = LoadPiece<true, N>(gain + column[k], N);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float product = dy[k][i] * x[k][i];
        dot = fmaf(product, g[i], dot);
        dgain[k][i] = fmaf(product, rstd, dgain[k][i]);
      }
    }
    const float mean = sums.Sum(dot, turn) * rstd / static_cast<float>(a.n);
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      Piece<T, N> residual{};
      if (has_residual) residual = ring.Get(stage, 2, k);
      float d[N];
      Gradient(x[k], dy[k], residual, LoadPiece<true, N>(gain + column[k], N), rstd, mean, d);
      StorePiece<kWhole>(d, a.dx + row * a.dx_stride + column[k], there ? a.n - column[k] : 0);
    }
    stage = stage == Ring::kStages - 1 ? 0 : stage + 1;
    turn ^= 1;
  }
  float* teams = gain + width;  // [blockDim.y, n] when a block has several teams
  __syncthreads();              // nobody reads the ring any more
  float* out = blockDim.y == 1 ? partial + int64_t{blockIdx.x} * a.n : teams + threadIdx.y * a.n;
#pragma unroll
  for (int k = 0; k < kPieces; ++k) StorePiece<false>(dgain[k], out + column[k], a.n - column[k]);
  if (blockDim.y == 1) return;
  __syncthreads();
  for (int c = thread; c < a.n; c += threads) {
    float sum = 0;
    for (unsigned team = 0; team < blockDim.y; ++team) sum += teams[team * a.n + c];
    partial[int64_t{blockIdx.x} * a.n + c] = sum;
  }
}

// dx for rows that do not fit a block's registers: a block owns a row and reads it twice.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kMaxThreads) LongNormBackward(const NormBackwardRows<T> a) {
  constexpr int N = kVector<T>;
  __shared__ float shared[kMaxThreads / kWarp];
  const int64_t row = blockIdx.x;
  const T *x = a.x + row * a.x_stride, *dy = a.dy + row * a.dy_stride;
  const T* residual = a.residual == nullptr ? nullptr : a.residual + row * a.residual_stride;
  const float rstd = a.rstd[row];
  float dot = 0;
  for (int c = threadIdx.x * N; c < a.n; c += kMaxThreads * N) {
    const auto s = LoadPiece<kWhole, N>(x + c, a.n - c), v = LoadPiece<kWhole, N>(dy + c, a.n - c);
#pragma unroll
    for (int i = 0; i < N; ++i) dot = fmaf(v[i] * (c + i < a.n ? a.gain[c + i] : 0), s[i], dot);
  }
  const float mean = TeamSum(dot, shared) * rstd / static_cast<float>(a.n);
  for (int c = threadIdx.x * N; c < a.n; c += kMaxThreads * N) {
    const auto s = LoadPiece<kWhole, N>(x + c, a.n - c), v = LoadPiece<kWhole, N>(dy + c, a.n - c);
    Piece<T, N> more{};
    if (residual != nullptr) more = LoadPiece<kWhole, N>(residual + c, a.n - c);
    float d[N];
    Gradient(s, v, more, LoadPiece<false, N>(a.gain + c, a.n - c), rstd, mean, d);
    StorePiece<kWhole>(d, a.dx + row * a.dx_stride + c, a.n - c);
  }
}

// partial [gridDim.y, n] of the long rows: a thread owns a column of rows [y * chunk, (y + 1) * chunk).
template <typename T>
__global__ void __launch_bounds__(kMaxThreads)
    LongNormDgain(const NormBackwardRows<T> a, int64_t chunk, float* partial) {
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= a.n) return;
  const int64_t begin = blockIdx.y * chunk, end = min(begin + chunk, a.rows);
  float sum = 0;
#pragma unroll 8
  for (int64_t r = begin; r < end; ++r)
    sum = fmaf(ToFloat(a.dy[r * a.dy_stride + c]), ToFloat(a.x[r * a.x_stride + c]) * a.rstd[r], sum);
  partial[int64_t{blockIdx.y} * a.n + c] = sum;
}

// dgain [n] = sum over `blocks` rows of partial. A block owns kColumns columns; a thread adds every
// kSumRows-th row of one, then come the rows of a warp and the warps.
constexpr int kColumns = 8, kSumRows = 128, kSumWarps = kColumns * kSumRows / kWarp;
__global__ void __launch_bounds__(kColumns* kSumRows)
    SumBlocks(const float* __restrict__ partial, int64_t blocks, int n, float* __restrict__ dgain) {
  __shared__ float sums[kSumWarps][kColumns];
  const int column = static_cast<int>(threadIdx.x % kColumns);
  const int c = static_cast<int>(blockIdx.x) * kColumns + column;
  float sum = 0;
  if (c < n) {
#pragma unroll 8
    for (int64_t b = threadIdx.x / kColumns; b < blocks; b += kSumRows) sum += partial[b * n + c];
  }
#pragma unroll
  for (int step = kWarp / 2; step >= kColumns; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if (threadIdx.x % kWarp < kColumns) sums[threadIdx.x / kWarp][column] = sum;
  __syncthreads();
  if (threadIdx.x >= kColumns || c >= n) return;
  sum = 0;
#pragma unroll
  for (int w = 0; w < kSumWarps; ++w) sum += sums[w][column];
  dgain[c] = sum;
}

// `scratch` gives memory for the blocks' dgain.
template <typename T, typename Scratch>
void LaunchNormBackward(cudaStream_t stream, const RmsNormBackwardArgs& args,
                        const cudaDeviceProp& properties, const Scratch& scratch) {
  const NormBackwardRows<T> a{.x = Data<T>(args.x),
                              .dy = Data<T>(args.dy),
                              .residual = Data<T>(args.residual),
                              .dx = Data<T>(args.dx),
                              .gain = Data<float>(args.gain),
                              .rstd = Data<float>(args.rstd),
                              .x_stride = args.x.stride,
                              .dy_stride = args.dy.stride,
                              .residual_stride = args.residual.stride,
                              .dx_stride = args.dx.stride,
                              .rows = args.x.rows(),
                              .n = static_cast<int>(args.x.cols())};
  const bool whole = Whole<T>(args.x) && Whole<T>(args.dy) && Whole<T>(args.residual) && Whole<T>(args.dx);
  int64_t blocks = 0;
  float* partial = nullptr;
  const auto partials = [&](int64_t count) {
    blocks = count;
    partial = static_cast<float*>(scratch(count * a.n * static_cast<int64_t>(sizeof(float))));
  };
  if (a.rows > 0) {
    ForBool(whole, [&](auto is_whole) {
      constexpr bool kWhole = decltype(is_whole)::value;
      bool fits = false;
      ForPieces<T, 2, kMaxThreads>(a.n, [&](auto pieces, dim3 block) {
        constexpr int kPieces = decltype(pieces)::value;
        const auto kernel = NormBackward<T, kPieces, kWhole>;
        const int64_t ring = RowRing<T, kPieces, kWhole>::Bytes(block, a.residual == nullptr ? 2 : 3);
        const int64_t teams = block.y == 1 ? 0 : int64_t{block.y} * a.n * sizeof(float);
        const int64_t shared =
            int64_t{block.x} * kPieces * kVector<T> * sizeof(float) + std::max(ring, teams);
        fits = shared <= static_cast<int64_t>(properties.sharedMemPerBlockOptin) - 1024;
        if (!fits) return;
        AllowShared(kernel, shared);
        partials(std::min(CeilDiv(a.rows, block.y),
                          ResidentBlocks(kernel, block, shared, properties.multiProcessorCount)));
        kernel<<<static_cast<unsigned>(blocks), block, shared, stream>>>(a, partial);
      });
      if (fits) return;
      // dgain first: dx may take dy's place.
      const int64_t chunk = std::max<int64_t>(CeilDiv(a.rows, 64), 16);
      partials(CeilDiv(a.rows, chunk));
      const dim3 grid(static_cast<unsigned>(CeilDiv(a.n, 128)), static_cast<unsigned>(blocks));
      LongNormDgain<T><<<grid, 128, 0, stream>>>(a, chunk, partial);
      LongNormBackward<T, kWhole><<<static_cast<unsigned>(a.rows), kMaxThreads, 0, stream>>>(a);
    });
  }
  SumBlocks<<<static_cast<unsigned>(CeilDiv(a.n, kColumns)), kColumns * kSumRows, 0, stream>>>(
      partial, blocks, a.n, Data<float>(args.dgain));
  Launched("RmsNormBackward");
}

}  // namespace
}  // namespace cuda

void CudaBackend::RmsNormBackward(Stream& stream, const RmsNormBackwardArgs& args) {
  if (args.x.cols() == 0) return;
  cuda::ForAct(args.x.dtype, [&](auto tag) {
    cuda::LaunchNormBackward<decltype(tag)>(cuda::Raw(stream), args, properties_,
                                            [&](int64_t bytes) { return Scratch(bytes); });
  });
}

}  // namespace moebius
