// What exchanges do with device memory: many scattered stretches copied in one launch, and sums over ranks.
#include <algorithm>

#include "core/backend/cuda/device_link.h"
#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {
namespace {

constexpr int kThreads = 256;

constexpr int kStretches = 128;  // of one launch: 3 KB of its 4 KB of parameters
struct StretchList {
  Stretch at[kStretches];
};
constexpr int64_t kBytesOfBlock = int64_t{64} << 10;
constexpr int64_t kMostBlocks = 64;

// Bytes [0, bytes) in words of T, both addresses being multiples of it, then what is left in bytes.
template <typename T>
__device__ void CopyWords(const Stretch& s, int64_t first, int64_t step) {
  const int64_t words = s.bytes / static_cast<int64_t>(sizeof(T));
  T* const to = reinterpret_cast<T*>(s.to);
  const T* const from = reinterpret_cast<const T*>(s.from);
#pragma unroll 4
  for (int64_t i = first; i < words; i += step) to[i] = from[i];
  for (int64_t i = words * static_cast<int64_t>(sizeof(T)) + first; i < s.bytes; i += step) {
    s.to[i] = s.from[i];
  }
}

// to[i] = from[i] for the bytes of each stretch. blockIdx.y: the stretch; the blocks of x share it by words.
__global__ void __launch_bounds__(kThreads) CopyKernel(const __grid_constant__ StretchList list) {
  const Stretch& s = list.at[blockIdx.y];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const uintptr_t both = reinterpret_cast<uintptr_t>(s.to) | reinterpret_cast<uintptr_t>(s.from);
  if (both % 16 == 0) {
    CopyWords<int4>(s, first, step);
  } else if (both % 4 == 0) {
    CopyWords<int>(s, first, step);
  } else {
    CopyWords<char>(s, first, step);
  }
}

// Of one sum. All at once, since a sum in bf16 is rounded at its end alone: a launch takes 4 KB of parameters
// at little cost, and 32 KB at most.
constexpr int kFewRanks = 256, kMostRanks = 4000;
template <int kRanks>
struct ContributionList {
  const void* at[kRanks];
};

__device__ __forceinline__ float Widen(Bf16 x) { return __bfloat162float(x); }
template <typename T>
__device__ __forceinline__ T Widen(T x) {
  return x;
}
__device__ __forceinline__ void Narrow(float x, Bf16& out) { out = __float2bfloat16_rn(x); }
template <typename T>
__device__ __forceinline__ void Narrow(T x, T& out) {
  out = x;
}

struct Sum {
  template <typename A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};
struct Max {
  template <typename A>
  __device__ A operator()(A a, A b) const {
    return a != a ? a : a > b ? a : b;  // a NaN stays, from whichever rank
  }
};

// out[i] = ((c0[i] op c1[i]) op c2[i]) ...: a thread an element. T: as stored, A: as accumulated.
template <typename T, typename A, int kRanks, typename Op>
__global__ void __launch_bounds__(kThreads)
    ReduceKernel(const __grid_constant__ ContributionList<kRanks> list, int ranks, int64_t count, T* out,
                 Op op) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    A running = Widen(static_cast<const T*>(list.at[0])[i]);
    for (int rank = 1; rank < ranks; ++rank) {
      running = op(running, A{Widen(static_cast<const T*>(list.at[rank])[i])});
    }
    Narrow(running, out[i]);
  }
}

template <typename T, typename A, int kRanks>
void Reduce(cudaStream_t stream, ReduceOp op, const std::vector<const void*>& contributions, int64_t count,
            void* out) {
  ContributionList<kRanks> list{};
  std::copy(contributions.begin(), contributions.end(), list.at);
  const int ranks = static_cast<int>(contributions.size());
  const int blocks = static_cast<int>(std::min<int64_t>(CeilDiv(count, kThreads), 1024));
  if (op == ReduceOp::kSum) {
    ReduceKernel<T, A><<<blocks, kThreads, 0, stream>>>(list, ranks, count, static_cast<T*>(out), Sum());
  } else {
    ReduceKernel<T, A><<<blocks, kThreads, 0, stream>>>(list, ranks, count, static_cast<T*>(out), Max());
  }
  Launched("Reduce");
}

template <typename T, typename A>
void Reduce(cudaStream_t stream, ReduceOp op, const std::vector<const void*>& contributions, int64_t count,
            void* out) {
  contributions.size() <= static_cast<size_t>(kFewRanks)
      ? Reduce<T, A, kFewRanks>(stream, op, contributions, count, out)
      : Reduce<T, A, kMostRanks>(stream, op, contributions, count, out);
}

}  // namespace

void CopyStretches(cudaStream_t stream, const std::vector<Stretch>& stretches) {
  for (size_t begin = 0; begin < stretches.size(); begin += kStretches) {
    const size_t n = std::min<size_t>(kStretches, stretches.size() - begin);
    StretchList list;
    int64_t longest = 0;
    for (size_t i = 0; i < n; ++i) {
      list.at[i] = stretches[begin + i];
      longest = std::max(longest, list.at[i].bytes);
    }
    const int64_t blocks = std::clamp<int64_t>(CeilDiv(longest, kBytesOfBlock), 1, kMostBlocks);
    CopyKernel<<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(n)), kThreads, 0, stream>>>(list);
    Launched("Copy");
  }
}

void ReduceInRankOrder(cudaStream_t stream, DType dtype, ReduceOp op,
                       const std::vector<const void*>& contributions, int64_t count, void* out) {
  CHECK_LE(contributions.size(), static_cast<size_t>(kMostRanks)) << "ranks of one sum";
  if (dtype == DType::kF32) Reduce<float, float>(stream, op, contributions, count, out);
  if (dtype == DType::kF64) Reduce<double, double>(stream, op, contributions, count, out);
  if (dtype == DType::kI64) Reduce<int64_t, int64_t>(stream, op, contributions, count, out);
  if (dtype == DType::kBF16) Reduce<Bf16, float>(stream, op, contributions, count, out);
}

}  // namespace moebius::cuda
