#include <algorithm>

#include "core/backend/cuda/dense_products.h"
#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

namespace {

constexpr int kThreads = 256;

// c[i, j] = source[i, j] (or 0) + bias[j] (or 0). A thread owns kCount adjacent elements of a row at a time.
// source may be c: every element is read by the thread that writes it, before.
template <typename T, int kCount>
__global__ void FinishRowsKernel(const float* source, int64_t source_stride, const float* bias, T* c,
                                 int64_t c_stride, int64_t rows, int64_t n) {
  const int64_t pieces = n / kCount, step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * pieces; i += step) {
    const int64_t row = i / pieces, column = i % pieces * kCount;
    Vector<float, kCount> sum = {}, add = {};
    if (source != nullptr) {
      sum = *reinterpret_cast<const Vector<float, kCount>*>(source + row * source_stride + column);
    }
    if (bias != nullptr) add = *reinterpret_cast<const Vector<float, kCount>*>(bias + column);
    Vector<T, kCount> out;
#pragma unroll
    for (int e = 0; e < kCount; ++e) out.at[e] = FromFloat<T>(sum.at[e] + add.at[e]);
    *reinterpret_cast<Vector<T, kCount>*>(c + row * c_stride + column) = out;
  }
}

bool Aligned(const void* data, int64_t bytes) { return reinterpret_cast<uintptr_t>(data) % bytes == 0; }

}  // namespace

void FinishRows(cudaStream_t stream, const FinishRowsArgs& args) {
  if (args.rows == 0 || args.n == 0) return;
  ForAct(args.c_type, [&](auto tag) {
    using T = decltype(tag);
    T* c = static_cast<T*>(args.c);
    const bool four = args.n % 4 == 0 && args.c_stride % 4 == 0 && Aligned(c, 4 * sizeof(T)) &&
                      Aligned(args.bias, 16) && Aligned(args.source, 16) && args.source_stride % 4 == 0;
    const int64_t pieces = args.rows * (four ? args.n / 4 : args.n);
    const int grid = static_cast<int>(std::min<int64_t>(CeilDiv(pieces, kThreads), 132 * 16));
    const auto kernel = four ? FinishRowsKernel<T, 4> : FinishRowsKernel<T, 1>;
    kernel<<<grid, kThreads, 0, stream>>>(args.source, args.source_stride, args.bias, c, args.c_stride,
                                          args.rows, args.n);
  });
  Launched("FinishRows");
}

}  // namespace moebius::cuda
