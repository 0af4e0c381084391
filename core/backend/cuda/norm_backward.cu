#include "core/backend/cuda/pieces.cuh"

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
// shared memory, where the gain lies too: registers are what limits the rows on their way. 72 of them let two
// blocks of 448 threads (rows of 7168 bf16) share a multiprocessor.
template <typename T, int kPieces, bool kWhole>
__global__ void __maxnreg__(72) NormBackward(const NormBackwardRows<T> a, float* partial) {
  constexpr int N = kVector<T>;
  __shared__ float shared[kMaxThreads / kWarp];
  extern __shared__ __align__(32) float gain[];  // [width], zeros beyond n
  const int width = static_cast<int>(blockDim.x) * kPieces * N;
  float* teams = gain + width;  // [blockDim.y, n] when a block has several teams
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  for (int c = thread; c < width; c += threads) gain[c] = c < a.n ? a.gain[c] : 0;
  __syncthreads();
  int column[kPieces];
  float dgain[kPieces][N] = {};
  Piece<T, N> x[kPieces], dy[kPieces];
#pragma unroll
  for (int k = 0; k < kPieces; ++k) column[k] = static_cast<int>(threadIdx.x + k * blockDim.x) * N;
  const auto load = [&](int64_t row) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int left = row < a.rows ? a.n - column[k] : 0;
      x[k] = LoadPiece<kWhole, N>(a.x + row * a.x_stride + column[k], left);
      dy[k] = LoadPiece<kWhole, N>(a.dy + row * a.dy_stride + column[k], left);
    }
  };
  const int64_t step = int64_t{gridDim.x} * blockDim.y;
  load(int64_t{blockIdx.x} * blockDim.y + threadIdx.y);
  for (int64_t base = int64_t{blockIdx.x} * blockDim.y; base < a.rows; base += step) {
    const int64_t row = base + threadIdx.y;
    const bool there = row < a.rows;
    const float rstd = there ? a.rstd[row] : 0;
    Piece<T, N> now_x[kPieces], now_dy[kPieces], residual[kPieces] = {};
    float dot = 0;
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int left = there ? a.n - column[k] : 0;
      if (a.residual != nullptr)
        residual[k] = LoadPiece<kWhole, N>(a.residual + row * a.residual_stride + column[k], left);
      now_x[k] = x[k];
      now_dy[k] = dy[k];
      const auto g = LoadPiece<true, N>(gain + column[k], N);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float v = dy[k][i], s = x[k][i];
        dot = fmaf(v * g[i], s, dot);
        dgain[k][i] = fmaf(v, s * rstd, dgain[k][i]);
      }
    }
    load(row + step);
    const float mean = TeamSum(dot, shared) * rstd / static_cast<float>(a.n);
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      float d[N];
      Gradient(now_x[k], now_dy[k], residual[k], LoadPiece<true, N>(gain + column[k], N), rstd, mean, d);
      StorePiece<kWhole>(d, a.dx + row * a.dx_stride + column[k], there ? a.n - column[k] : 0);
    }
  }
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

// dgain [n] = sum over `blocks` rows of partial. A block owns kWarp columns; thread (x, y) adds rows y,
// y + kWarp, ... of column x, the first warp adds up the kWarp sums.
__global__ void __launch_bounds__(kWarp* kWarp)
    SumBlocks(const float* __restrict__ partial, int64_t blocks, int n, float* __restrict__ dgain) {
  __shared__ float sums[kWarp][kWarp + 1];
  const int c = static_cast<int>(blockIdx.x * kWarp + threadIdx.x);
  float sum = 0;
  if (c < n) {
#pragma unroll 8
    for (int64_t b = threadIdx.y; b < blocks; b += kWarp) sum += partial[b * n + c];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= n) return;
  for (int y = 1; y < kWarp; ++y) sum += sums[y][threadIdx.x];
  dgain[c] = sum;
}

// `scratch` gives memory for the blocks' dgain.
template <typename T, typename Scratch>
void LaunchNormBackward(cudaStream_t stream, const RmsNormBackwardArgs& args, int multiprocessors,
                        const Scratch& scratch) {
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
      const bool fits = ForPieces<T, 2, kMaxThreads>(a.n, [&](auto pieces, dim3 block) {
        constexpr int kPieces = decltype(pieces)::value;
        const auto kernel = NormBackward<T, kPieces, kWhole>;
        const int64_t floats = block.x * kPieces * kVector<T> + (block.y == 1 ? 0 : block.y * a.n);
        const int64_t shared = floats * static_cast<int64_t>(sizeof(float));
        partials(std::min(CeilDiv(a.rows, block.y), ResidentBlocks(kernel, block, shared, multiprocessors)));
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
  SumBlocks<<<static_cast<unsigned>(CeilDiv(a.n, kWarp)), dim3(kWarp, kWarp), 0, stream>>>(
      partial, blocks, a.n, Data<float>(args.dgain));
  Launched("RmsNormBackward");
}

}  // namespace
}  // namespace cuda

void CudaBackend::RmsNormBackward(Stream& stream, const RmsNormBackwardArgs& args) {
  if (args.x.cols() == 0) return;
  cuda::ForAct(args.x.dtype, [&](auto tag) {
    cuda::LaunchNormBackward<decltype(tag)>(cuda::Raw(stream), args, properties_.multiProcessorCount,
                                            [&](int64_t bytes) { return Scratch(bytes); });
  });
}

}  // namespace moebius
