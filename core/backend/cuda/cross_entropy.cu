// Cross-entropy and its gradient. A row is cut into as many parts as a cluster has blocks, so that (on
// Hopper) each block keeps its part in shared memory: the row is read once. What does not fit is read again,
// latest first, while the second-level cache may still hold it. Other cards run code without clusters: a row
// is one part.
#include <math_constants.h>

#include <algorithm>
#include <cfloat>
#include <type_traits>

#include "core/backend/cuda/double_sums.cuh"
#include "core/backend/cuda/hopper.cuh"
#include "core/backend/cuda/row_ring.cuh"

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
  const float* weights;  // null: 1 each
  float inverse_temperature;
  float* entropies;  // null: not wanted
  float entropy_scale;
  T* dlogits;  // null, or may be logits
  int64_t dlogits_stride;
  int vocabulary;
  int part;    // elements of a row that a block owns; the row's last part may be shorter
  int cached;  // elements of its part that a block's shared memory holds
};

constexpr int kThreads = 256;
constexpr int kMostParts = 8;       // blocks of a cluster that every Hopper GPU can place
constexpr int kValuesAThread = 16;  // taken together
constexpr int kStep = kThreads * kValuesAThread;
constexpr int kStepsAhead = 5;  // that are on their way to shared memory

// The numbers of a row of logits x. With z = (x - max) * inverse temperature (in this order: a low
// temperature would magnify the rounding of a product) exp(z) / sum are the probabilities, and exp(z) * z
// sums up to `weighted` where entropies are wanted.
struct Normalizer {
  float max;
  double sum;
  double weighted;
  // The same relative to another maximum; `by` is the inverse temperature.
  __device__ void Rebase(float to, float by) {
    const double fall = (static_cast<double>(max) - to) * by;  // of a mask's -FLT_MAX still finite
    const float factor = expf(static_cast<float>(fall));
    weighted = sum > 0 ? factor * (weighted + fall * sum) : 0;
    sum *= factor;
    max = to;
  }
  __device__ double Entropy() const { return log(sum) - weighted / sum; }
};

// Where value group u of a thread begins in a step.
template <int kUnit>
__device__ __forceinline__ int At(int base, int u) {
  return base + (u * kThreads + static_cast<int>(threadIdx.x)) * kUnit;
}

// Starts the copy of a step of the part into shared memory. A thread copies what it alone will read.
template <int kUnit>
__device__ __forceinline__ void StartStep(const float* row, int base, int cached, float* cache) {
#pragma unroll
  for (int u = 0; u < kValuesAThread / kUnit; ++u) {
    const int at = At<kUnit>(base, u);
    if (at >= cached) continue;
    const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(cache + at));
    if constexpr (kUnit == 4) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(row + at) : "memory");
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(row + at) : "memory");
    }
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// A thread's values of a step, from shared memory or the row; those beyond `end` count as minus infinity,
// whose exponential is 0.
template <int kUnit>
__device__ __forceinline__ void LoadStep(const float* row, int base, int end, int cached, const float* cache,
                                         Vector<float, kUnit> (&x)[kValuesAThread / kUnit]) {
  using Unit = Vector<float, kUnit>;
#pragma unroll
  for (int u = 0; u < kValuesAThread / kUnit; ++u) {
    const int at = At<kUnit>(base, u);
    if (at < cached) {
      x[u] = *reinterpret_cast<const Unit*>(cache + at);
    } else if (at < end) {
      x[u] = *reinterpret_cast<const Unit*>(row + at);
    } else {
#pragma unroll
      for (int i = 0; i < kUnit; ++i) x[u].at[i] = -CUDART_INF_F;
    }
  }
}

// Adds a step's values to a thread's running maximum and sums below it.
template <bool kEntropy, int kUnit>
__device__ __forceinline__ void AddStep(const Vector<float, kUnit> (&x)[kValuesAThread / kUnit], float by,
                                        Normalizer& running) {
  float most = running.max, part = 0, weighted = 0;
#pragma unroll
  for (const auto& unit : x) {
#pragma unroll
    for (const float value : unit.at) most = fmaxf(most, value);
  }
#pragma unroll
  for (const auto& unit : x) {
#pragma unroll
    for (const float value : unit.at) {
      const float z = (value - most) * by, p = expf(z);
      part += p;
      if (kEntropy && p > 0) weighted += p * z;
    }
  }
  if constexpr (kEntropy) {
    running.Rebase(most, by);
    running.sum += part;
    running.weighted += weighted;
  } else {
    running = {most, running.sum * expf((running.max - most) * by) + part, 0};
  }
}

// max and sum of a block's part, `count` elements. What shared memory does not hold comes first: it is read
// while the rest is on its way.
template <bool kEntropy, int kUnit>
__device__ Normalizer Normalize(const float* row, int count, int cached, float* cache, float by) {
  __shared__ float maxima[kThreads / kWarp];
  __shared__ double sums[kThreads / kWarp];
  Vector<float, kUnit> x[kValuesAThread / kUnit];
  Normalizer running{-FLT_MAX, 0, 0};
  for (int base = cached; base < count; base += kStep) {
    LoadStep<kUnit>(row, base, count, cached, cache, x);
    AddStep<kEntropy, kUnit>(x, by, running);
  }
  for (int base = 0; base < cached; base += kStep) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStepsAhead - 1) : "memory");
    LoadStep<kUnit>(row, base, cached, cached, cache, x);
    AddStep<kEntropy, kUnit>(x, by, running);
    StartStep<kUnit>(row, base + kStepsAhead * kStep, cached, cache);
  }
  const float most = BlockMax<kThreads>(running.max, maxima);
  if constexpr (!kEntropy) {
    return {most, BlockSum<kThreads>(running.sum * expf((running.max - most) * by), sums), 0};
  }
  running.Rebase(most, by);
  const double sum = BlockSum<kThreads>(running.sum, sums);
  __syncthreads();  // before the next sum takes the same memory
  return {most, sum, BlockSum<kThreads>(running.weighted, sums)};
}

// The row's max and sum from those of its parts, in their order. Every thread of every block of the cluster.
__device__ Normalizer OfRow(const Normalizer& own, int parts, float by) {
#if __CUDA_ARCH__ >= 900
  __shared__ float maxima[kMostParts];
  __shared__ double sums[kMostParts], weighted[kMostParts];
  const uint32_t rank = ClusterRank();
  if (threadIdx.x < parts) {  // to block threadIdx.x of the cluster, at this block's place
    asm volatile(
        "{\n"
        ".reg .b32 max, sum, weighted;\n"
        "mapa.shared::cluster.u32 max, %0, %6;\n"
        "mapa.shared::cluster.u32 sum, %1, %6;\n"
        "mapa.shared::cluster.u32 weighted, %2, %6;\n"
        "st.shared::cluster.f32 [max], %3;\n"
        "st.shared::cluster.f64 [sum], %4;\n"
        "st.shared::cluster.f64 [weighted], %5;\n"
        "}\n" ::"r"(SharedAddress(maxima + rank)),
        "r"(SharedAddress(sums + rank)), "r"(SharedAddress(weighted + rank)), "f"(own.max), "d"(own.sum),
        "d"(own.weighted), "r"(threadIdx.x)
        : "memory");
  }
  SyncCluster();
  Normalizer row{-FLT_MAX, 0, 0};
  for (int p = 0; p < parts; ++p) row.max = fmaxf(row.max, maxima[p]);
  for (int p = 0; p < parts; ++p) {
    Normalizer part{maxima[p], sums[p], weighted[p]};
    part.Rebase(row.max, by);
    row.sum += part.sum;
    row.weighted += part.weighted;
  }
  return row;
#else
  return own;
#endif
}

// dlogits = p * (loss + entropy * (ln p + H)), minus loss at the target; `sum` and the row's entropy H come
// in as factors.
struct GradientFactors {
  float by;       // inverse temperature
  float loss;     // scale * weight * inverse temperature
  float p;        // loss / sum
  float entropy;  // entropy_scale * inverse temperature / sum; 0: no such term
  float shift;    // ln p + H = z + shift
};

// A thread writes only elements that it has read itself (from `row`, or from what it copied to `cache`), so
// dlogits may be the row.
template <bool kEntropy, typename T, int kUnit>
__device__ void WriteGradient(const float* row, int count, int cached, const float* cache, int target,
                              float max, const GradientFactors& factors, T* dlogits) {
  for (int base = (count - 1) / kStep * kStep; base >= 0; base -= kStep) {
    Vector<float, kUnit> x[kValuesAThread / kUnit];
    LoadStep<kUnit>(row, base, count, cached, cache, x);
#pragma unroll
    for (int u = 0; u < kValuesAThread / kUnit; ++u) {
      const int at = At<kUnit>(base, u);
      if (at >= count) continue;
      Vector<T, kUnit> y;
#pragma unroll
      for (int i = 0; i < kUnit; ++i) {
        const float z = (x[u].at[i] - max) * factors.by, e = expf(z);
        float g = e * factors.p;
        if (kEntropy && e > 0) g += e * factors.entropy * (z + factors.shift);
        y.at[i] = FromFloat<T>(at + i == target ? g - factors.loss : g);
      }
      *reinterpret_cast<Vector<T, kUnit>*>(dlogits + at) = y;
    }
  }
}

// Block blockIdx.x owns part blockIdx.x % parts of row blockIdx.x / parts; a cluster owns a row.
template <bool kEntropy, typename T, int kUnit>
__global__ void __launch_bounds__(kThreads, 3) CrossEntropyKernel(CrossEntropyKernelArgs<T> args, int parts) {
  extern __shared__ uint4 memory[];
  float* cache = reinterpret_cast<float*>(memory);
  const int64_t r = blockIdx.x / static_cast<unsigned>(parts);
  const int part = static_cast<int>(blockIdx.x % static_cast<unsigned>(parts));
  const int begin = part * args.part, count = min(args.part, args.vocabulary - begin);
  const float* row = args.logits + r * args.logits_stride;
  T* dlogits = args.dlogits == nullptr ? nullptr : args.dlogits + r * args.dlogits_stride + begin;
  const int target = args.targets[r];
  if (target < 0) {
    if (part == 0 && threadIdx.x == 0) {
      args.losses[r] = 0;
      if (kEntropy) args.entropies[r] = 0;
    }
    if (dlogits == nullptr) return;
    Vector<T, kUnit> zero;
#pragma unroll
    for (int i = 0; i < kUnit; ++i) zero.at[i] = FromFloat<T>(0);
    for (int at = static_cast<int>(threadIdx.x) * kUnit; at < count; at += kThreads * kUnit) {
      *reinterpret_cast<Vector<T, kUnit>*>(dlogits + at) = zero;
    }
    return;
  }
  if (target >= args.vocabulary) __trap();  // a token that does not exist
  const int cached = min(args.cached, count);
  for (int step = 0; step < kStepsAhead; ++step) StartStep<kUnit>(row + begin, step * kStep, cached, cache);
#if __CUDA_ARCH__ >= 900
  if (parts > 1) SyncCluster();  // the others run: their shared memory may be written
#endif
  // Read before the synchronisations that follow, after which dlogits may replace it.
  const float by = args.inverse_temperature;
  const float at_target = part == 0 && threadIdx.x == 0 ? row[target] : 0;
  Normalizer normalizer = Normalize<kEntropy, kUnit>(row + begin, count, cached, cache, by);
  if (parts > 1) normalizer = OfRow(normalizer, parts, by);
  if (part == 0 && threadIdx.x == 0) {
    const double behind = static_cast<double>(normalizer.max) - at_target;
    args.losses[r] = static_cast<float>(log(normalizer.sum) + behind * by);
    if (kEntropy) args.entropies[r] = static_cast<float>(normalizer.Entropy());
  }
  if (dlogits == nullptr) return;
  const float loss = args.scale * (args.weights == nullptr ? 1 : args.weights[r]) * by;
  const GradientFactors factors{
      .by = by,
      .loss = loss,
      .p = static_cast<float>(loss / normalizer.sum),
      .entropy = kEntropy ? static_cast<float>(args.entropy_scale * by / normalizer.sum) : 0,
      .shift = kEntropy ? static_cast<float>(-normalizer.weighted / normalizer.sum) : 0};
  WriteGradient<kEntropy, T, kUnit>(row + begin, count, cached, cache, target - begin, normalizer.max,
                                    factors, dlogits);
}

template <bool kEntropy, typename T, int kUnit>
void Launch(const CrossEntropyKernelArgs<T>& args, int64_t rows, int parts, cudaStream_t stream) {
  const auto kernel = CrossEntropyKernel<kEntropy, T, kUnit>;
  const int64_t shared = args.cached * static_cast<int64_t>(sizeof(float));
  AllowShared(kernel, shared);
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(parts), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(rows * parts));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = parts == 1 ? 0 : 1;
  CUDA_OK(cudaLaunchKernelEx(&config, kernel, args, parts));
}

// Whether rows of `x` can be walked in units of four elements.
template <typename T>
bool ByFours(const TensorView& x) {
  return reinterpret_cast<uintptr_t>(x.data) % (4 * sizeof(T)) == 0 && x.stride % 4 == 0 && x.cols() % 4 == 0;
}

// Elements that a block's dynamic shared memory holds when `blocks` of them share a multiprocessor; the
// runtime keeps 1 KiB of each block, and the kernel has less than half of one of its own.
int64_t Room(const cudaDeviceProp& properties, int64_t blocks) {
  const int64_t part = static_cast<int64_t>(properties.sharedMemPerMultiprocessor) / blocks - 1536;
  return std::min<int64_t>(part, static_cast<int64_t>(properties.sharedMemPerBlockOptin) - 512) / 16 * 4;
}

struct Cut {
  int parts;
  int64_t part, cached;  // elements
};
// Three blocks a multiprocessor, so that some move memory while others reduce; fewer where a part would not
// fit otherwise. Losses alone need no cache. Only Hopper's own code knows clusters: newer cards run what is
// compiled for compute capability 8.0, as older ones do.
Cut CutRow(const cudaDeviceProp& properties, int64_t vocabulary, bool gradient) {
  Cut cut{.parts = 1, .part = vocabulary, .cached = 0};
  if (!gradient) return cut;
  while (properties.major == 9 && cut.parts < kMostParts && cut.part > Room(properties, 3)) {
    cut.parts *= 2;
    cut.part = CeilDiv(CeilDiv(vocabulary, cut.parts), kWarp) * kWarp;  // whole lines of memory
  }
  int blocks = 3;
  while (blocks > 1 && cut.part > Room(properties, blocks)) --blocks;
  const int64_t room = Room(properties, blocks);
  cut.cached = cut.part <= room ? cut.part : room / kStep * kStep;
  return cut;
}

}  // namespace
}  // namespace cuda

void CudaBackend::CrossEntropy(Stream& stream, const CrossEntropyArgs& args) {
  const int64_t rows = args.logits.rows(), vocabulary = args.logits.cols();
  if (rows == 0) return;
  CHECK_LE(vocabulary, int64_t{1} << 30);
  const bool gradient = static_cast<bool>(args.dlogits);
  const cuda::Cut cut = cuda::CutRow(properties_, vocabulary, gradient);
  CHECK_LT(rows * cut.parts, int64_t{1} << 31) << "blocks of one launch";
  cuda::ForAct(gradient ? args.dlogits.dtype : DType::kF32, [&](auto act) {
    using T = decltype(act);
    const cuda::CrossEntropyKernelArgs<T> kernel{.logits = cuda::Data<const float>(args.logits),
                                                 .logits_stride = args.logits.stride,
                                                 .targets = cuda::Data<const int32_t>(args.targets),
                                                 .losses = cuda::Data<float>(args.losses),
                                                 .scale = args.scale,
                                                 .weights = cuda::Data<const float>(args.weights),
                                                 .inverse_temperature = args.inverse_temperature,
                                                 .entropies = cuda::Data<float>(args.entropies),
                                                 .entropy_scale = args.entropy_scale,
                                                 .dlogits = cuda::Data<T>(args.dlogits),
                                                 .dlogits_stride = args.dlogits.stride,
                                                 .vocabulary = static_cast<int>(vocabulary),
                                                 .part = static_cast<int>(cut.part),
                                                 .cached = static_cast<int>(cut.cached)};
    const bool fours = cuda::ByFours<float>(args.logits) && (!gradient || cuda::ByFours<T>(args.dlogits));
    const cudaStream_t raw = cuda::Raw(stream);
    const auto launch = [&](auto entropy) {
      constexpr bool kEntropy = decltype(entropy)::value;
      fours ? cuda::Launch<kEntropy, T, 4>(kernel, rows, cut.parts, raw)
            : cuda::Launch<kEntropy, T, 1>(kernel, rows, cut.parts, raw);
    };
    args.entropies ? launch(std::true_type()) : launch(std::false_type());
  });
  cuda::Launched("CrossEntropy");
}

}  // namespace moebius
