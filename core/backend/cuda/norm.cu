#include "core/backend/cuda/row_ring.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kMaxThreads = 512;

// The views of a call: base pointers (null where not given) and row strides in elements.
template <typename T>
struct NormRows {
  const T *x, *add;
  T *sum, *y;
  const float* gain;
  float* rstd;
  int64_t x_stride, add_stride, sum_stride, y_stride, rows;
  int n;
  float epsilon;
};
// s = x (+ add), rounded to T even where it is not stored: a norm that is made again from a stored sum has
// the same bits.
template <int N, typename T>
__device__ __forceinline__ void Sum(const Piece<T, N>& x, const Piece<T, N>& add, bool adds, float (&s)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    s[i] = x[i];
    if (adds) s[i] = ToFloat(FromFloat<T>(s[i] + add[i]));
  }
}

// y = s * rstd * gain, rstd = 1 / sqrt(mean(s²) + epsilon). Blocks go round over the rows; a team of threads
// (TeamBlock) owns a row, a thread kPieces pieces of it, whose gain it keeps. The next rows are on their way
// while one is summed.
template <typename T, int kPieces, bool kWhole>
__global__ void __launch_bounds__(kMaxThreads, kPieces <= 2 ? 2 : 1) Norm(const NormRows<T> a) {
  using Ring = RowRing<T, kPieces, kWhole>;
  constexpr int N = kVector<T>;
  __shared__ TeamSums sums;
  extern __shared__ uint4 memory[];
  const bool adds = a.add != nullptr;
  Ring ring(memory, adds ? 2 : 1);
  int column[kPieces];
  float gain[kPieces][N];
#pragma unroll
  for (int k = 0; k < kPieces; ++k) column[k] = static_cast<int>(threadIdx.x + k * blockDim.x) * N;
  const auto start = [&](int64_t row, int stage) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int left = row < a.rows ? a.n - column[k] : 0;
      ring.Start(stage, 0, k, a.x + row * a.x_stride + column[k], left);
      if (adds) ring.Start(stage, 1, k, a.add + row * a.add_stride + column[k], left);
    }
    ring.Commit();
  };
  const int64_t step = int64_t{gridDim.x} * blockDim.y;
  const int64_t first = int64_t{blockIdx.x} * blockDim.y;
  for (int stage = 0; stage < Ring::kStages - 1; ++stage) start(first + stage * step + threadIdx.y, stage);
#pragma unroll
  for (int k = 0; k < kPieces; ++k) {
#pragma unroll
    for (int i = 0; i < N; ++i) gain[k][i] = column[k] + i < a.n ? a.gain[column[k] + i] : 0;
  }
  sums.Clear();
  int stage = 0, turn = 0;
  // All teams of a block go round equally often: a sum wants every thread.
  for (int64_t base = first; base < a.rows; base += step) {
    const int64_t row = base + threadIdx.y;
    const bool there = row < a.rows;
    start(row + (Ring::kStages - 1) * step, stage == 0 ? Ring::kStages - 1 : stage - 1);
    ring.Wait();
    float s[kPieces][N], squares = 0;
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      Piece<T, N> more{};
      if (adds) more = ring.Get(stage, 1, k);
      Sum(ring.Get(stage, 0, k), more, adds, s[k]);
#pragma unroll
      for (int i = 0; i < N; ++i) squares = fmaf(s[k][i], s[k][i], squares);
    }
    const float rstd = 1.0f / sqrtf(sums.Sum(squares, turn) / static_cast<float>(a.n) + a.epsilon);
    if (there && threadIdx.x == 0) a.rstd[row] = rstd;
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int left = there ? a.n - column[k] : 0;
      if (a.sum != nullptr) StorePiece<kWhole>(s[k], a.sum + row * a.sum_stride + column[k], left);
#pragma unroll
      for (int i = 0; i < N; ++i) s[k][i] = s[k][i] * rstd * gain[k][i];
      StorePiece<kWhole>(s[k], a.y + row * a.y_stride + column[k], left);
    }
    stage = stage == Ring::kStages - 1 ? 0 : stage + 1;
    turn ^= 1;
  }
}

// The same for rows that do not fit a block's registers: a block owns a row and reads it twice. `y` may be x:
// a thread writes only pieces that it alone reads.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kMaxThreads) LongNorm(const NormRows<T> a) {
  constexpr int N = kVector<T>;
  __shared__ float shared[kMaxThreads / kWarp];
  const int64_t row = blockIdx.x;
  const T *x = a.x + row * a.x_stride, *add = a.add == nullptr ? nullptr : a.add + row * a.add_stride;
  T *sum = a.sum == nullptr ? nullptr : a.sum + row * a.sum_stride, *y = a.y + row * a.y_stride;
  const auto load = [&](int c, float(&s)[N]) {
    Piece<T, N> more{};
    if (add != nullptr) more = LoadPiece<kWhole, N>(add + c, a.n - c);
    Sum(LoadPiece<kWhole, N>(x + c, a.n - c), more, add != nullptr, s);
  };
  float squares = 0;
  for (int c = threadIdx.x * N; c < a.n; c += kMaxThreads * N) {
    float s[N];
    load(c, s);
    if (sum != nullptr) StorePiece<kWhole>(s, sum + c, a.n - c);
#pragma unroll
    for (int i = 0; i < N; ++i) squares = fmaf(s[i], s[i], squares);
  }
  const float rstd = 1.0f / sqrtf(TeamSum(squares, shared) / static_cast<float>(a.n) + a.epsilon);
  if (threadIdx.x == 0) a.rstd[row] = rstd;
  for (int c = threadIdx.x * N; c < a.n; c += kMaxThreads * N) {
    float s[N];
    if (sum != nullptr) {  // it may have taken x's place
      Sum(LoadPiece<kWhole, N>(sum + c, a.n - c), Piece<T, N>{}, false, s);
    } else {
      load(c, s);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) s[i] = s[i] * rstd * (c + i < a.n ? a.gain[c + i] : 0);
    StorePiece<kWhole>(s, y + c, a.n - c);
  }
}

template <typename T>
void LaunchNorm(cudaStream_t stream, const RmsNormArgs& args, const cudaDeviceProp& properties) {
  const NormRows<T> a{.x = Data<T>(args.x),
                      .add = Data<T>(args.add),
                      .sum = Data<T>(args.sum),
                      .y = Data<T>(args.y),
                      .gain = Data<float>(args.gain),
                      .rstd = Data<float>(args.rstd),
                      .x_stride = args.x.stride,
                      .add_stride = args.add.stride,
                      .sum_stride = args.sum.stride,
                      .y_stride = args.y.stride,
                      .rows = args.x.rows(),
                      .n = static_cast<int>(args.x.cols()),
                      .epsilon = args.epsilon};
  const bool whole = Whole<T>(args.x) && Whole<T>(args.add) && Whole<T>(args.sum) && Whole<T>(args.y);
  ForBool(whole, [&](auto is_whole) {
    constexpr bool kWhole = decltype(is_whole)::value;
    bool fits = false;
    ForPieces<T, 4, kMaxThreads>(a.n, [&](auto pieces, dim3 block) {
      constexpr int kPieces = decltype(pieces)::value;
      const auto kernel = Norm<T, kPieces, kWhole>;
      const int64_t shared = RowRing<T, kPieces, kWhole>::Bytes(block, a.add == nullptr ? 1 : 2);
      fits = shared <= static_cast<int64_t>(properties.sharedMemPerBlockOptin) - 1024;
      if (!fits) return;
      AllowShared(kernel, shared);
      const int64_t grid = std::min(CeilDiv(a.rows, block.y),
                                    ResidentBlocks(kernel, block, shared, properties.multiProcessorCount));
      kernel<<<static_cast<unsigned>(grid), block, shared, stream>>>(a);
    });
    if (!fits) LongNorm<T, kWhole><<<static_cast<unsigned>(a.rows), kMaxThreads, 0, stream>>>(a);
  });
  Launched("RmsNorm");
}

}  // namespace
}  // namespace cuda

void CudaBackend::RmsNorm(Stream& stream, const RmsNormArgs& args) {
  if (args.x.elements() == 0) return;
  cuda::ForAct(args.x.dtype,
               [&](auto tag) { cuda::LaunchNorm<decltype(tag)>(cuda::Raw(stream), args, properties_); });
}

}  // namespace moebius
