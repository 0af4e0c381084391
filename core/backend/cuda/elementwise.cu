#include "core/backend/cuda/pieces.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPieces = 4;  // of a thread

// What becomes of element y: op(x, y). An operand that is not read may lie anywhere.
struct FillOp {
  static constexpr bool kReadsX = false, kReadsY = false;
  float value;
  __device__ float operator()(float, float) const { return value; }
};
struct CastOp {
  static constexpr bool kReadsX = true, kReadsY = false;
  __device__ float operator()(float x, float) const { return x; }
};
struct AccumulateOp {
  static constexpr bool kReadsX = true, kReadsY = true;
  float alpha;
  __device__ float operator()(float x, float y) const { return fmaf(alpha, x, y); }
};

// The bits that T keeps of x. bf16 as BF16::FromFloat: the conversion instruction would turn every NaN into
// one of its own.
template <typename T>
__device__ __forceinline__ uint32_t Bits(float x) {
  if constexpr (sizeof(T) == 4) return __float_as_uint(x);
  return isnan(x) ? __float_as_uint(x) >> 16 | 0x40u : uint32_t{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

// op of a piece of x and one of y.
template <typename X, typename Y, int N, typename Op>
__device__ __forceinline__ Piece<Y, N> Result(const Piece<X, N>& x, const Piece<Y, N>& y, const Op& op) {
  Piece<Y, N> result{};
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const uint32_t bits = Bits<Y>(op(x[i], y[i]));
    if constexpr (sizeof(Y) == 4) {
      result.words[i] = bits;
    } else {
      result.words[i / 2] |= bits << i % 2 * 16;
    }
  }
  return result;
}

// y [pieces * N] = op(x, y). A thread owns kPieces pieces, kThreads apart; all are loaded before any is
// stored.
template <int N, typename X, typename Y, typename Op>
__global__ void __launch_bounds__(kThreads) MapFlat(const X* x, Y* y, int64_t pieces, Op op) {
  const int64_t first = int64_t{blockIdx.x} * (kThreads * kPieces) + threadIdx.x;
  Piece<X, N> from[kPieces] = {};
  Piece<Y, N> to[kPieces] = {};
#pragma unroll
  for (int k = 0; k < kPieces; ++k) {
    const int64_t piece = first + k * kThreads;
    if constexpr (Op::kReadsX) from[k] = LoadPiece<true, N>(x + piece * N, pieces - piece);
    if constexpr (Op::kReadsY) to[k] = LoadPiece<true, N>(y + piece * N, pieces - piece);
  }
#pragma unroll
  for (int k = 0; k < kPieces; ++k) {
    const int64_t piece = first + k * kThreads;
    if (piece < pieces) StorePiece<true>(Result(from[k], to[k], op), y + piece * N, N);
  }
}

// y [rows, pieces * N] = op(x, y), rows strided. A block owns kPieces * blockDim.y rows; a thread every
// blockDim.x-th piece (of all blocks in y) of kPieces rows at a time.
template <int N, typename X, typename Y, typename Op>
__global__ void __launch_bounds__(kThreads)
    MapRows(const X* x, int64_t x_stride, Y* y, int64_t y_stride, int64_t rows, int pieces, Op op) {
  const int64_t first = int64_t{blockIdx.x} * kPieces * blockDim.y + threadIdx.y;
  for (int p = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x); p < pieces;
       p += static_cast<int>(gridDim.y * blockDim.x)) {
    Piece<X, N> from[kPieces] = {};
    Piece<Y, N> to[kPieces] = {};
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int64_t row = first + k * blockDim.y;
      if constexpr (Op::kReadsX)
        from[k] = LoadPiece<true, N>(x + row * x_stride + int64_t{p} * N, rows - row);
      if constexpr (Op::kReadsY) to[k] = LoadPiece<true, N>(y + row * y_stride + int64_t{p} * N, rows - row);
    }
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int64_t row = first + k * blockDim.y;
      if (row < rows) StorePiece<true>(Result(from[k], to[k], op), y + row * y_stride + int64_t{p} * N, N);
    }
  }
}

template <int N, typename X, typename Y, typename Op>
void LaunchFlat(cudaStream_t stream, const X* x, Y* y, int64_t elements, const Op& op) {
  const int64_t pieces = elements / N, blocks = CeilDiv(pieces, kThreads * kPieces);
  if (blocks == 0) return;
  MapFlat<N><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(x, y, pieces, op);
  Launched("MapFlat");
}

template <int N, typename X, typename Y, typename Op>
void LaunchRows(cudaStream_t stream, const X* x, int64_t x_stride, Y* y, int64_t y_stride, int64_t rows,
                int64_t cols, const Op& op) {
  const int64_t pieces = cols / N;
  if (rows == 0 || pieces == 0) return;
  const dim3 block = TeamBlock(pieces, kThreads);
  const dim3 grid(static_cast<unsigned>(CeilDiv(rows, kPieces * block.y)),
                  static_cast<unsigned>(std::min<int64_t>(CeilDiv(pieces, block.x), 65535)));
  MapRows<N><<<grid, block, 0, stream>>>(x, x_stride, y, y_stride, rows, static_cast<int>(pieces), op);
  Launched("MapRows");
}

// Contiguous views of any length go in vectors but for the last few elements; strided ones when whole rows
// do.
template <typename X, typename Y, typename Op>
void MapAs(cudaStream_t stream, const TensorView& x, const TensorView& y, const Op& op) {
  constexpr int N = 16 / std::max(sizeof(X), sizeof(Y));
  const X* from = Data<const X>(x);
  Y* to = Data<Y>(y);
  const int64_t rows = y.rows(), cols = y.cols();
  const bool aligned =
      Aligned(y, N * sizeof(Y)) && (!Op::kReadsX || Aligned(x, static_cast<int64_t>(N * sizeof(X))));
  if (x.contiguous() && y.contiguous()) {
    // Rows of a contiguous view need no alignment of their own.
    const bool bases = reinterpret_cast<uintptr_t>(to) % (N * sizeof(Y)) == 0 &&
                       (!Op::kReadsX || reinterpret_cast<uintptr_t>(from) % (N * sizeof(X)) == 0);
    const int64_t all = rows * cols, whole = bases ? all / N * N : 0;
    LaunchFlat<N>(stream, from, to, whole, op);
    LaunchFlat<1>(stream, from + whole, to + whole, all - whole, op);
  } else if (aligned && cols % N == 0) {
    LaunchRows<N>(stream, from, x.stride, to, y.stride, rows, cols, op);
  } else {
    LaunchRows<1>(stream, from, x.stride, to, y.stride, rows, cols, op);
  }
}

}  // namespace
}  // namespace cuda

void CudaBackend::Zero(Stream& stream, TensorView x) {
  if (x.elements() == 0) return;
  const int64_t size = SizeOf(x.dtype);
  if (x.contiguous()) {
    CUDA_OK(cudaMemsetAsync(x.data, 0, x.bytes(), cuda::Raw(stream)));
  } else {
    CUDA_OK(cudaMemset2DAsync(x.data, x.stride * size, 0, x.cols() * size, x.rows(), cuda::Raw(stream)));
  }
}

void CudaBackend::Fill(Stream& stream, TensorView x, float value) {
  cuda::ForAct(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    cuda::MapAs<T, T>(cuda::Raw(stream), x, x, cuda::FillOp{value});
  });
}

void CudaBackend::Cast(Stream& stream, TensorView from, TensorView to) {
  cuda::ForAct(from.dtype, [&](auto x) {
    cuda::ForAct(to.dtype, [&](auto y) {
      cuda::MapAs<decltype(x), decltype(y)>(cuda::Raw(stream), from, to, cuda::CastOp{});
    });
  });
}

void CudaBackend::Accumulate(Stream& stream, const AccumulateArgs& args) {
  cuda::ForAct(args.x.dtype, [&](auto x) {
    cuda::ForAct(args.y.dtype, [&](auto y) {
      cuda::MapAs<decltype(x), decltype(y)>(cuda::Raw(stream), args.x, args.y,
                                            cuda::AccumulateOp{args.alpha});
    });
  });
}

}  // namespace moebius
