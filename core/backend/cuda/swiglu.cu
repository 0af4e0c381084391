#include "core/backend/cuda/pieces.cuh"
#include "core/backend/cuda/swiglu.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// Base pointers (null where not given) and row strides in elements. Up follows gate after `width` elements.
template <typename T>
struct SwiGluRows {
  const T* gate_up;
  const float* weights;
  T* h;
  int64_t gate_up_stride, h_stride, rows;
  int width;
};
template <typename T>
struct SwiGluBackwardRows {
  const T *gate_up, *dh;
  const float* weights;
  T *d_gate_up, *h;
  float* d_weights;
  int64_t gate_up_stride, dh_stride, d_gate_up_stride, h_stride, rows;
  int width;
};

// h = silu(gate) * up * weight. A team of threads (TeamBlock) owns a row, a thread every blockDim.x-th piece.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kThreads) Forward(const SwiGluRows<T> a) {
  constexpr int N = kVector<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;
  const T *gate = a.gate_up + row * a.gate_up_stride, *up = gate + a.width;
  const float weight = a.weights == nullptr ? 1.0f : a.weights[row];
  for (int c = static_cast<int>(threadIdx.x) * N; c < a.width; c += static_cast<int>(blockDim.x) * N) {
    const auto gates = LoadPiece<kWhole, N>(gate + c, a.width - c);
    const auto ups = LoadPiece<kWhole, N>(up + c, a.width - c);
    float h[N];
#pragma unroll
    for (int i = 0; i < N; ++i) h[i] = SwiGluOf(gates[i], ups[i], weight);
    StorePiece<kWhole>(h, a.h + row * a.h_stride + c, a.width - c);
  }
}

// Teams and threads own what they own in Forward; a thread stores only where it alone has read.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kThreads) Backward(const SwiGluBackwardRows<T> a) {
  constexpr int N = kVector<T>;
  __shared__ float shared[kThreads / kWarp];
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool there = row < a.rows;
  const T *gate = a.gate_up + row * a.gate_up_stride, *up = gate + a.width, *dh = a.dh + row * a.dh_stride;
  T *dgate = a.d_gate_up + row * a.d_gate_up_stride, *dup = dgate + a.width;
  const float weight = there && a.weights != nullptr ? a.weights[row] : 1.0f;
  const int width = there ? a.width : 0;
  float d_weight = 0;
  for (int c = static_cast<int>(threadIdx.x) * N; c < width; c += static_cast<int>(blockDim.x) * N) {
    const auto gates = LoadPiece<kWhole, N>(gate + c, width - c);
    const auto ups = LoadPiece<kWhole, N>(up + c, width - c);
    const auto ds = LoadPiece<kWhole, N>(dh + c, width - c);
    float h[N], dg[N], du[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const SwiGluGradients d = SwiGluGradientsOf(gates[i], ups[i], ds[i], weight, &d_weight);
      h[i] = d.h;
      dg[i] = d.dgate;
      du[i] = d.dup;
    }
    if (a.h != nullptr) StorePiece<kWhole>(h, a.h + row * a.h_stride + c, width - c);
    StorePiece<kWhole>(dg, dgate + c, width - c);
    StorePiece<kWhole>(du, dup + c, width - c);
  }
  if (a.d_weights == nullptr) return;
  d_weight = TeamSum(d_weight, shared);
  if (there && threadIdx.x == 0) a.d_weights[row] = d_weight;
}

// Whether rows are made of aligned vectors, gate and up each of whole ones; a view that is not given is no
// obstacle.
template <typename T>
bool Whole(const TensorView& x, int64_t width) {
  return !x || (Aligned(x, 16) && width % kVector<T> == 0);
}

unsigned Blocks(int64_t rows, dim3 block) { return static_cast<unsigned>(CeilDiv(rows, block.y)); }

template <typename T>
void LaunchForward(cudaStream_t stream, const SwiGluArgs& args) {
  const SwiGluRows<T> a{.gate_up = Data<T>(args.gate_up),
                        .weights = Data<float>(args.row_weights),
                        .h = Data<T>(args.h),
                        .gate_up_stride = args.gate_up.stride,
                        .h_stride = args.h.stride,
                        .rows = args.h.rows(),
                        .width = static_cast<int>(args.h.cols())};
  const dim3 block = TeamBlock(CeilDiv(a.width, kVector<T>), kThreads);
  ForBool(Whole<T>(args.gate_up, a.width) && Whole<T>(args.h, a.width), [&](auto whole) {
    Forward<T, decltype(whole)::value><<<Blocks(a.rows, block), block, 0, stream>>>(a);
  });
  Launched("SwiGlu");
}

template <typename T>
void LaunchBackward(cudaStream_t stream, const SwiGluBackwardArgs& args) {
  const SwiGluBackwardRows<T> a{.gate_up = Data<T>(args.gate_up),
                                .dh = Data<T>(args.dh),
                                .weights = Data<float>(args.row_weights),
                                .d_gate_up = Data<T>(args.d_gate_up),
                                .h = Data<T>(args.h),
                                .d_weights = Data<float>(args.d_row_weights),
                                .gate_up_stride = args.gate_up.stride,
                                .dh_stride = args.dh.stride,
                                .d_gate_up_stride = args.d_gate_up.stride,
                                .h_stride = args.h.stride,
                                .rows = args.dh.rows(),
                                .width = static_cast<int>(args.dh.cols())};
  const dim3 block = TeamBlock(CeilDiv(a.width, kVector<T>), kThreads);
  const bool all_whole = Whole<T>(args.gate_up, a.width) && Whole<T>(args.dh, a.width) &&
                         Whole<T>(args.d_gate_up, a.width) && Whole<T>(args.h, a.width);
  ForBool(all_whole, [&](auto whole) {
    Backward<T, decltype(whole)::value><<<Blocks(a.rows, block), block, 0, stream>>>(a);
  });
  Launched("SwiGluBackward");
}

}  // namespace
}  // namespace cuda

void CudaBackend::SwiGlu(Stream& stream, const SwiGluArgs& args) {
  if (args.h.elements() == 0) return;
  if (args.rounded_h.rows) return cuda::SwiGluToFp8(cuda::Raw(stream), args);
  cuda::ForAct(args.h.dtype, [&](auto tag) { cuda::LaunchForward<decltype(tag)>(cuda::Raw(stream), args); });
}

void CudaBackend::SwiGluBackward(Stream& stream, const SwiGluBackwardArgs& args) {
  if (args.dh.rows() == 0) return;
  if (args.rounded_d_gate_up.rows) return cuda::SwiGluBackwardToFp8(cuda::Raw(stream), args);
  cuda::ForAct(args.dh.dtype,
               [&](auto tag) { cuda::LaunchBackward<decltype(tag)>(cuda::Raw(stream), args); });
}

}  // namespace moebius
