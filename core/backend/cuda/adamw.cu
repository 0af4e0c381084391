#include <cmath>

#include "core/backend/cuda/double_sums.cuh"
#include "core/backend/cuda/pieces.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// The tensors of a call (weight and ema null where not given) and its numbers, bias corrections included.
template <typename M, typename V>
struct AdamWRange {
  float* master;
  M* m;
  V* v;
  float* grad;
  Bf16* weight;
  float* ema;
  float scale, lr, beta1, beta2, epsilon, decay, to_m_hat, to_v_hat, ema_decay;
};

// One element of kernel_args.h's formula.
template <typename Range>
__device__ __forceinline__ void Step(const Range& a, float g, float& m, float& v, float& w) {
  g *= a.scale;
  m = fmaf(1 - a.beta1, g, a.beta1 * m);
  v = fmaf((1 - a.beta2) * g, g, a.beta2 * v);
  const float root = sqrtf(v * a.to_v_hat);
  w = fmaf(-a.lr, fmaf(a.decay, w, m * a.to_m_hat / (root + a.epsilon)), w);
}

// A thread owns the N elements that follow begin + thread * N, all below `end`. It reads each once and writes
// each once, the gradient to zero.
template <int N, typename M, typename V>
__global__ void __launch_bounds__(kThreads) Update(const AdamWRange<M, V> a, int64_t begin, int64_t end) {
  const int64_t at = begin + (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= end) return;
  const auto grad = LoadPiece<true, N>(a.grad + at, N), master = LoadPiece<true, N>(a.master + at, N);
  const auto old_m = LoadPiece<true, N>(a.m + at, N);
  const auto old_v = LoadPiece<true, N>(a.v + at, N);
  Piece<float, N> old_ema{};
  if (a.ema != nullptr) old_ema = LoadPiece<true, N>(a.ema + at, N);
  float m[N], v[N], w[N], ema[N], zero[N] = {};
#pragma unroll
  for (int i = 0; i < N; ++i) {
    m[i] = old_m[i];
    v[i] = old_v[i];
    w[i] = master[i];
    Step(a, grad[i], m[i], v[i], w[i]);
    ema[i] = fmaf(1 - a.ema_decay, w[i], a.ema_decay * old_ema[i]);
  }
  StorePiece<true>(m, a.m + at, N);
  StorePiece<true>(v, a.v + at, N);
  StorePiece<true>(w, a.master + at, N);
  StorePiece<true>(zero, a.grad + at, N);
  if (a.weight != nullptr) StorePiece<true>(w, a.weight + at, N);
  if (a.ema != nullptr) StorePiece<true>(ema, a.ema + at, N);
}

template <int N, typename M, typename V>
void LaunchUpdate(cudaStream_t stream, const AdamWRange<M, V>& a, int64_t begin, int64_t end) {
  if (begin == end) return;
  const int64_t blocks = CeilDiv((end - begin) / N, kThreads);
  Update<N><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(a, begin, end);
  Launched("AdamW");
}

// Four elements a thread: neighbours then touch adjacent memory in every tensor, 16 bytes each in fp32.
template <typename M, typename V>
void LaunchAdamW(cudaStream_t stream, const AdamWArgs& args) {
  // In double: 1 - beta^step of an early step loses digits in fp32.
  const auto correction = [&](double beta) {
    return static_cast<float>(1 / (1 - std::pow(beta, static_cast<double>(args.step))));
  };
  const AdamWRange<M, V> a{.master = Data<float>(args.master),
                           .m = Data<M>(args.m),
                           .v = Data<V>(args.v),
                           .grad = Data<float>(args.grad),
                           .weight = Data<Bf16>(args.weight),
                           .ema = Data<float>(args.ema),
                           .scale = args.grad_scale,
                           .lr = args.lr,
                           .beta1 = args.beta1,
                           .beta2 = args.beta2,
                           .epsilon = args.epsilon,
                           .decay = args.weight_decay,
                           .to_m_hat = correction(args.beta1),
                           .to_v_hat = correction(args.beta2),
                           .ema_decay = args.ema_decay};
  constexpr int N = 4;
  const int64_t n = args.master.elements();
  bool aligned = true;
  for (const TensorView& x : {args.master, args.m, args.v, args.grad, args.weight, args.ema})
    aligned = aligned && reinterpret_cast<uintptr_t>(x.data) % (N * SizeOf(x.dtype)) == 0;
  const int64_t whole = aligned ? n / N * N : 0;
  LaunchUpdate<N>(stream, a, 0, whole);
  LaunchUpdate<1>(stream, a, whole, n);
}

// partial [gridDim.x] = sums of squares. A thread owns pieces of N elements, a grid's threads apart, in
// kSquares interleaved sums; the few elements after the last piece are block 0's. Squares of fp32 are exact
// in double.
constexpr int kSquares = 4;
template <int N>
__global__ void __launch_bounds__(kThreads) SquaresOf(const float* x, int64_t n, double* partial) {
  __shared__ double shared[kThreads / kWarp];
  const int64_t step = int64_t{gridDim.x} * kThreads * N, whole = n / N * N;
  double sums[kSquares] = {};
  for (int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N; at < whole; at += kSquares * step) {
    Piece<float, N> pieces[kSquares];
#pragma unroll
    for (int k = 0; k < kSquares; ++k)
      pieces[k] = LoadPiece<true, N>(x + at + k * step, whole - (at + k * step));
#pragma unroll
    for (int k = 0; k < kSquares; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const double value = pieces[k][i];
        sums[k] = fma(value, value, sums[k]);
      }
    }
  }
  if (const int64_t at = whole + threadIdx.x; blockIdx.x == 0 && at < n) {
    const double value = x[at];
    sums[0] = fma(value, value, sums[0]);
  }
  const double total = BlockSum<kThreads>(sums[0] + sums[1] + (sums[2] + sums[3]), shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// sum = the sum of `blocks` partial sums; one block.
constexpr int kFinalThreads = 1024;
__global__ void __launch_bounds__(kFinalThreads)
    AddPartials(const double* partial, int64_t blocks, double* sum) {
  __shared__ double shared[kFinalThreads / kWarp];
  double mine = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += kFinalThreads) mine += partial[b];
  const double total = BlockSum<kFinalThreads>(mine, shared);
  if (threadIdx.x == 0) *sum = total;
}

}  // namespace
}  // namespace cuda

void CudaBackend::AdamW(Stream& stream, const AdamWArgs& args) {
  cuda::ForAct(args.m.dtype, [&](auto m) {
    cuda::ForAct(args.v.dtype,
                 [&](auto v) { cuda::LaunchAdamW<decltype(m), decltype(v)>(cuda::Raw(stream), args); });
  });
}

void CudaBackend::SumSquares(Stream& stream, TensorView x, TensorView sum) {
  // The grid follows from n and the alignment of x alone, so every device adds in the same order.
  constexpr int64_t kMostBlocks = 2112;
  const int64_t n = x.elements();
  const int64_t blocks = std::min(cuda::CeilDiv(n, cuda::kThreads * 16), kMostBlocks);
  // Most tensors are small (gains): one block is the whole sum.
  double* partial = blocks == 1 ? cuda::Data<double>(sum)
                                : static_cast<double*>(Scratch(kMostBlocks * int64_t{sizeof(double)}));
  const float* data = cuda::Data<float>(x);
  if (blocks > 0) {
    cuda::ForBool(cuda::Aligned(x, 16), [&](auto aligned) {
      cuda::SquaresOf<decltype(aligned)::value ? 4 : 1>
          <<<static_cast<unsigned>(blocks), cuda::kThreads, 0, cuda::Raw(stream)>>>(data, n, partial);
    });
  }
  if (blocks == 1) return cuda::Launched("SumSquares");
  cuda::AddPartials<<<1, cuda::kFinalThreads, 0, cuda::Raw(stream)>>>(partial, blocks,
                                                                      cuda::Data<double>(sum));
  cuda::Launched("SumSquares");
}

}  // namespace moebius
