// Cross-entropy and its gradient. A block owns one row. The first pass reads the row under a running maximum
// and keeps as much of it in shared memory as fits; the second takes the gradient from there and reads again
// only the rest, latest first, while the second-level cache still holds it.
#include <math_constants.h>

#include <algorithm>
#include <cfloat>

#include "core/backend/cuda/double_sums.cuh"
#include "core/backend/cuda/kernel.cuh"

namespace moebius {
namespace cuda {
namespace {

template <typename T>
struct CrossEntropyKernelArgs {
  const float* logits;  // [n, V]
  int64_t logits_stride;
  const int32_t* targets;
  float* losses;
  float scale;
  T* dlogits;  // null, or may be logits
  int64_t dlogits_stride;
  int vocabulary;
  int cached;  // elements of a row that shared memory holds
};

constexpr int kValuesAThread = 16;  // loaded together

// The numbers of one block's row: exp(x - max) / sum are the probabilities.
struct Normalizer {
  float max;
  double sum;
};

// max and sum of the row. Each thread keeps its own running maximum and its sum below it; both are then
// brought to the row's. Elements beyond the end count as minus infinity, whose exponential is 0.
template <int kThreads, int kUnit>
__device__ Normalizer Normalize(const float* row, int vocabulary, int cached, float* cache) {
  constexpr int kUnits = kValuesAThread / kUnit;
  using Unit = Vector<float, kUnit>;
  __shared__ float maxima[kThreads / kWarp];
  __shared__ double sums[kThreads / kWarp];
  float max = -FLT_MAX;
  double sum = 0;
  for (int base = 0; base < vocabulary; base += kThreads * kValuesAThread) {
    Unit x[kUnits];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int at = base + (u * kThreads + static_cast<int>(threadIdx.x)) * kUnit;
      if (at < vocabulary) {
        x[u] = *reinterpret_cast<const Unit*>(row + at);
      } else {
#pragma unroll
        for (int i = 0; i < kUnit; ++i) x[u].at[i] = -CUDART_INF_F;
      }
    }
    float most = max;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int at = base + (u * kThreads + static_cast<int>(threadIdx.x)) * kUnit;
      if (at < cached) *reinterpret_cast<Unit*>(cache + at) = x[u];
#pragma unroll
      for (int i = 0; i < kUnit; ++i) most = fmaxf(most, x[u].at[i]);
    }
    float part = 0;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
#pragma unroll
      for (int i = 0; i < kUnit; ++i) part += expf(x[u].at[i] - most);
    }
    sum = sum * expf(max - most) + part;
    max = most;
  }
  const float most = BlockMax<kThreads>(max, maxima);
  return {most, BlockSum<kThreads>(sum * expf(max - most), sums)};
}

// dlogits = exp(x - max) * factor, minus scale at the target. A thread writes only elements that it has read
// itself (from `row`, or from what it wrote to `cache`), so dlogits may be the row.
template <typename T, int kThreads, int kUnit>
__device__ void WriteGradient(const float* row, int vocabulary, int cached, const float* cache, int target,
                              float max, float factor, float scale, T* dlogits) {
  constexpr int kUnits = kValuesAThread / kUnit;
  constexpr int kStep = kThreads * kValuesAThread;
  using Unit = Vector<float, kUnit>;
  for (int base = (vocabulary - 1) / kStep * kStep; base >= 0; base -= kStep) {
    Unit x[kUnits];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int at = base + (u * kThreads + static_cast<int>(threadIdx.x)) * kUnit;
      if (at < cached) {
        x[u] = *reinterpret_cast<const Unit*>(cache + at);
      } else if (at < vocabulary) {
        x[u] = *reinterpret_cast<const Unit*>(row + at);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int at = base + (u * kThreads + static_cast<int>(threadIdx.x)) * kUnit;
      if (at >= vocabulary) continue;
      Vector<T, kUnit> y;
#pragma unroll
      for (int i = 0; i < kUnit; ++i) {
        const float p = expf(x[u].at[i] - max) * factor;
        y.at[i] = FromFloat<T>(at + i == target ? p - scale : p);
      }
      *reinterpret_cast<Vector<T, kUnit>*>(dlogits + at) = y;
    }
  }
}

template <typename T, int kThreads, int kUnit>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads)
    CrossEntropyKernel(CrossEntropyKernelArgs<T> args) {
  extern __shared__ __align__(16) float cache[];
  const int64_t r = blockIdx.x;
  const float* row = args.logits + r * args.logits_stride;
  T* dlogits = args.dlogits == nullptr ? nullptr : args.dlogits + r * args.dlogits_stride;
  const int target = args.targets[r], vocabulary = args.vocabulary;
  if (target < 0) {
    if (threadIdx.x == 0) args.losses[r] = 0;
    if (dlogits == nullptr) return;
    Vector<T, kUnit> zero;
#pragma unroll
    for (int i = 0; i < kUnit; ++i) zero.at[i] = FromFloat<T>(0);
    for (int at = static_cast<int>(threadIdx.x) * kUnit; at < vocabulary; at += kThreads * kUnit) {
      *reinterpret_cast<Vector<T, kUnit>*>(dlogits + at) = zero;
    }
    return;
  }
  if (target >= vocabulary) __trap();  // a token that does not exist
  // Read before the synchronisations of Normalize, after which dlogits may replace it.
  const float at_target = threadIdx.x == 0 ? row[target] : 0;
  const Normalizer normalizer = Normalize<kThreads, kUnit>(row, vocabulary, args.cached, cache);
  if (threadIdx.x == 0) {
    args.losses[r] =
        static_cast<float>(log(normalizer.sum) + (static_cast<double>(normalizer.max) - at_target));
  }
  if (dlogits == nullptr) return;
  const float factor = static_cast<float>(args.scale / normalizer.sum);
  WriteGradient<T, kThreads, kUnit>(row, vocabulary, args.cached, cache, target, normalizer.max, factor,
                                    args.scale, dlogits);
}

template <typename T, int kThreads, int kUnit>
void Launch(const CrossEntropyKernelArgs<T>& args, int64_t rows, cudaStream_t stream) {
  const auto kernel = CrossEntropyKernel<T, kThreads, kUnit>;
  const int shared = args.cached * static_cast<int>(sizeof(float));
  if (shared > (40 << 10)) {  // 48 KiB in all are there unasked
    CUDA_OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  }
  kernel<<<static_cast<unsigned>(rows), kThreads, shared, stream>>>(args);
}

// Whether rows of `x` can be walked in units of four elements.
template <typename T>
bool ByFours(const TensorView& x) {
  return reinterpret_cast<uintptr_t>(x.data) % (4 * sizeof(T)) == 0 && x.stride % 4 == 0 && x.cols() % 4 == 0;
}

// The dynamic shared memory of a block when `blocks` of them share a multiprocessor; the runtime keeps 1 KiB
// of each block, and the kernel has less than 1 KiB of its own.
int64_t SharedBytes(const cudaDeviceProp& properties, int64_t blocks) {
  const int64_t part = static_cast<int64_t>(properties.sharedMemPerMultiprocessor) / blocks - 2048;
  return std::min<int64_t>(part, static_cast<int64_t>(properties.sharedMemPerBlockOptin) - 1024);
}

}  // namespace
}  // namespace cuda

// Short rows, and losses alone: two blocks a multiprocessor, one of which moves memory while the other
// reduces. Long rows: one block, so that most of the row fits and the rows in flight together fit the
// second-level cache.
void CudaBackend::CrossEntropy(Stream& stream, const CrossEntropyArgs& args) {
  const int64_t rows = args.logits.rows(), vocabulary = args.logits.cols();
  if (rows == 0) return;
  CHECK_LE(vocabulary, int64_t{1} << 30);
  const bool gradient = static_cast<bool>(args.dlogits);
  const bool two =
      !gradient || vocabulary * static_cast<int64_t>(sizeof(float)) <= 2 * cuda::SharedBytes(properties_, 2);
  const int64_t room = cuda::SharedBytes(properties_, two ? 2 : 1) / 16 * 4;
  cuda::ForAct(gradient ? args.dlogits.dtype : DType::kF32, [&](auto act) {
    using T = decltype(act);
    const cuda::CrossEntropyKernelArgs<T> kernel{
        .logits = cuda::Data<const float>(args.logits),
        .logits_stride = args.logits.stride,
        .targets = cuda::Data<const int32_t>(args.targets),
        .losses = cuda::Data<float>(args.losses),
        .scale = args.scale,
        .dlogits = cuda::Data<T>(args.dlogits),
        .dlogits_stride = args.dlogits.stride,
        .vocabulary = static_cast<int>(vocabulary),
        .cached = gradient ? static_cast<int>(std::min(room, vocabulary)) : 0};
    const bool fours = cuda::ByFours<float>(args.logits) && (!gradient || cuda::ByFours<T>(args.dlogits));
    const cudaStream_t raw = cuda::Raw(stream);
    if (two) {
      fours ? cuda::Launch<T, 512, 4>(kernel, rows, raw) : cuda::Launch<T, 512, 1>(kernel, rows, raw);
    } else {
      fours ? cuda::Launch<T, 1024, 4>(kernel, rows, raw) : cuda::Launch<T, 1024, 1>(kernel, rows, raw);
    }
  });
  cuda::Launched("CrossEntropy");
}

}  // namespace moebius
