// Routing: scores, choice and weights of experts, and the gradient of the logits. One warp owns one token;
// lane l holds the experts l, l + 32, ... in registers, so a row is read once and nothing but group scores
// goes through shared memory.
#include <math_constants.h>

#include "core/backend/cuda/top_k.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kTokensABlock = 4;
constexpr int kThreads = kTokensABlock * kWarp;

// The CPU's exponential has these bounds too (cpu/simd-inl.h): scores that tie there tie here.
__device__ __forceinline__ float BoundedExp(float x) {
  x = x < -87.3f ? -87.3f : x;  // NaN stays
  return expf(x > 89.0f ? 89.0f : x);
}

template <int kWidth>
__device__ __forceinline__ float MaxOfRow(const float (&x)[kWidth]) {
  float most = x[0];
#pragma unroll
  for (int i = 1; i < kWidth; ++i) most = fmaxf(most, x[i]);
  return WarpMax(most);
}
template <int kWidth>
__device__ __forceinline__ float SumOfRow(const float (&x)[kWidth]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum += x[i];
  return WarpSum(sum);
}
template <int kWidth>
__device__ __forceinline__ float DotOfRows(const float (&x)[kWidth], const float (&y)[kWidth]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum = fmaf(x[i], y[i], sum);
  return WarpSum(sum);
}

// x = exp(x - max x), 0 beyond the row's end; returns the sum, and the maximum through `most`.
template <int kWidth>
__device__ __forceinline__ float ExpOfRow(float (&x)[kWidth], int n, int lane, float& most) {
  most = MaxOfRow(x);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) x[i] = lane + kWarp * i < n ? BoundedExp(x[i] - most) : 0;
  return SumOfRow(x);
}

struct Rows {
  const float* data;
  int64_t stride;
  __device__ const float* operator[](int64_t row) const { return data + row * stride; }
};

struct RouterKernelArgs {
  RouterSpec spec;
  int64_t tokens;
  int experts;
  Rows logits;
  const float* bias;
  const int32_t* given;  // or null
  int64_t given_stride;
  float* scores;
  int64_t scores_stride;
  int32_t* chosen;
  int64_t chosen_stride;
  float* weights;
  int64_t weights_stride;
};

// Where value e lies in shared memory: groups of 32 begin in different banks.
__device__ __forceinline__ int Padded(int e) { return e + e / kWarp; }

// The best value of a group, or the sum of its two best. The comparisons treat NaN as the CPU's do.
__device__ float GroupScore(const float* ranked, int begin, int size, bool two) {
  float first = -CUDART_INF_F, second = first;
  for (int e = begin; e < begin + size; ++e) {
    const float x = ranked[Padded(e)];
    const float less = x < first ? x : first;
    second = second < less ? less : second;
    first = first < x ? x : first;
  }
  return two && size > 1 ? first + second : first;
}

// Experts outside the best groups get the key of minus infinity (not of 0: biased scores may be negative).
// `shared` is this warp's.
template <int kWidth>
__device__ void MaskGroups(const RouterSpec& spec, int experts, int lane, const float (&ranked)[kWidth],
                           float* shared, unsigned (&keys)[kWidth]) {
  const int groups = static_cast<int>(spec.num_groups), size = experts / groups;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int e = lane + kWarp * i;
    if (e < experts) shared[Padded(e)] = ranked[i];
  }
  __syncwarp();
  unsigned group_keys[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int g = lane + kWarp * i;
    group_keys[i] =
        g < groups ? RankKey(GroupScore(shared, g * size, size, spec.scoring == Scoring::kSigmoid), g) : 0;
  }
  unsigned kept = 0;  // bit i: expert lane + 32 i
  for (int taken = 0; taken < spec.top_groups; ++taken) {
    const int begin = TakeBest(group_keys, lane) * size;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const int e = lane + kWarp * i;
      if (e >= begin && e < begin + size) kept |= 1u << i;
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int e = lane + kWarp * i;
    if (e < experts && !(kept >> i & 1)) keys[i] = RankKey(-CUDART_INF_F, e);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads) RouterKernel(RouterKernelArgs args) {
  __shared__ float shared[kTokensABlock][kWarp * kWidth + kWidth];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, n = args.experts;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokensABlock + warp;
  if (t >= args.tokens) return;

  float scores[kWidth];
  LoadRow(args.logits[t], n, lane, -CUDART_INF_F, scores);
  if (args.spec.scoring == Scoring::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) scores[i] = 1 / (1 + BoundedExp(-scores[i]));
  } else {
    float most;
    const float sum = ExpOfRow(scores, n, lane, most);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) scores[i] /= sum;
  }

  float ranked[kWidth];
  unsigned keys[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int e = lane + kWarp * i;
    if (e < n) args.scores[t * args.scores_stride + e] = scores[i];
    ranked[i] = args.bias != nullptr && e < n ? scores[i] + args.bias[e] : scores[i];
    keys[i] = e < n ? RankKey(ranked[i], e) : 0;
  }
  if (args.spec.top_groups < args.spec.num_groups) {
    MaskGroups(args.spec, n, lane, ranked, shared[warp], keys);
  }

  const int32_t* given = args.given != nullptr ? args.given + t * args.given_stride : nullptr;
  if (given != nullptr && given[0] < 0) given = nullptr;  // the same in all lanes
  float sum = 1e-20f, score = 0;
  int expert = 0;
  for (int k = 0; k < args.spec.top_k; ++k) {
    const int best = given != nullptr ? given[k] : TakeBest(keys, lane);
    float found = 0;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (best == lane + kWarp * i) found = scores[i];
    }
    found = __shfl_sync(kAllLanes, found, best % kWarp);
    sum += found;
    if (lane == k) {
      expert = best;
      score = found;
    }
  }
  if (lane < args.spec.top_k) {
    args.chosen[t * args.chosen_stride + lane] = expert;
    args.weights[t * args.weights_stride + lane] =
        (args.spec.normalize ? score / sum : score) * args.spec.scale;
  }
}

struct RouterBackwardKernelArgs {
  RouterSpec spec;
  int64_t tokens;
  int experts;
  Rows logits;
  Rows scores;
  const int32_t* chosen;
  int64_t chosen_stride;
  Rows dweights;
  Rows balance;           // data null without
  const int32_t* starts;  // device copy of sequence_starts, with balance
  int num_starts;
  float z;
  float* dlogits;
  int64_t dlogits_stride;
};

// The s with starts[s] <= t < starts[s + 1]; empty sequences own no token.
__device__ int SequenceOf(int64_t t, const int32_t* starts, int num_starts) {
  int low = 0, high = num_starts;  // starts[low] <= t, and t < starts[high] (if there is one)
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (starts[middle] <= t ? low : high) = middle;
  }
  return low;
}

// ds += the gradient of the weights with respect to the scores of the chosen experts.
//   w_k = scale s_k / S:  ds_j = scale (dw_j - sum_k dw_k s_k / S) / S.
template <int kWidth>
__device__ void AddWeightGradient(const RouterBackwardKernelArgs& args, int64_t t, int lane,
                                  float (&ds)[kWidth]) {
  const int top_k = static_cast<int>(args.spec.top_k);
  int expert = 0;  // lane k: of choice k
  float dweight = 0, score = 0;
  if (lane < top_k) {
    expert = args.chosen[t * args.chosen_stride + lane];
    dweight = args.dweights[t][lane];
    score = args.scores[t][expert];
  }
  float sum = 1e-20f, dot = 0;
  for (int k = 0; k < top_k; ++k) {
    const float s = __shfl_sync(kAllLanes, score, k);
    sum += s;
    dot = fmaf(__shfl_sync(kAllLanes, dweight, k), s, dot);
  }
  const float scale = args.spec.scale;
  const float change = args.spec.normalize ? scale * (dweight - dot / sum) / sum : scale * dweight;
  for (int k = 0; k < top_k; ++k) {
    const int at = __shfl_sync(kAllLanes, expert, k);
    const float value = __shfl_sync(kAllLanes, change, k);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (at == lane + kWarp * i) ds[i] += value;
    }
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads) RouterBackwardKernel(RouterBackwardKernelArgs args) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, n = args.experts;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokensABlock + warp;
  if (t >= args.tokens) return;

  float scores[kWidth], ds[kWidth];
  LoadRow(args.scores[t], n, lane, 0, scores);
  if (args.balance.data == nullptr) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) ds[i] = 0;
  } else {
    // p_e = s_e / S: d(sum_e c_e p_e)/ds_i = (c_i - sum_e c_e p_e) / S.
    LoadRow(args.balance[SequenceOf(t, args.starts, args.num_starts)], n, lane, 0, ds);
    const float inverse = 1 / (SumOfRow(scores) + 1e-20f);
    const float mean = DotOfRows(ds, scores) * inverse;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) ds[i] = (ds[i] - mean) * inverse;
  }
  AddWeightGradient(args, t, lane, ds);
  if (args.spec.scoring == Scoring::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) ds[i] *= scores[i] * (1 - scores[i]);
  } else {
    const float dot = DotOfRows(ds, scores);  // scores are 0 beyond the row's end
#pragma unroll
    for (int i = 0; i < kWidth; ++i) ds[i] = scores[i] * (ds[i] - dot);
  }
  if (args.z != 0) {
    float x[kWidth], most;
    LoadRow(args.logits[t], n, lane, -CUDART_INF_F, x);
    const float sum = ExpOfRow(x, n, lane, most);
    const float factor = 2 * args.z * (most + logf(sum)) / sum;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) ds[i] = fmaf(x[i], factor, ds[i]);
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int e = lane + kWarp * i;
    if (e < n) args.dlogits[t * args.dlogits_stride + e] = ds[i];
  }
}

Rows RowsOf(const TensorView& view) { return {Data<const float>(view), view.stride}; }

unsigned Blocks(int64_t tokens) { return static_cast<unsigned>(CeilDiv(tokens, kTokensABlock)); }

}  // namespace
}  // namespace cuda

RouterLimits CudaBackend::router_limits() const {
  return {.experts = cuda::kMaxExperts, .top_k = cuda::kMaxTopK};
}

void CudaBackend::Router(Stream& stream, const RouterArgs& args) {
  const int64_t tokens = args.logits.rows(), experts = args.logits.cols();
  if (tokens == 0) return;
  CHECK_LE(args.spec.top_k, cuda::kMaxTopK);
  const cuda::RouterKernelArgs kernel{.spec = args.spec,
                                      .tokens = tokens,
                                      .experts = static_cast<int>(experts),
                                      .logits = cuda::RowsOf(args.logits),
                                      .bias = cuda::Data<const float>(args.bias),
                                      .given = cuda::Data<const int32_t>(args.given),
                                      .given_stride = args.given.stride,
                                      .scores = cuda::Data<float>(args.scores),
                                      .scores_stride = args.scores.stride,
                                      .chosen = cuda::Data<int32_t>(args.experts),
                                      .chosen_stride = args.experts.stride,
                                      .weights = cuda::Data<float>(args.weights),
                                      .weights_stride = args.weights.stride};
  cuda::ForWidth(experts, [&](auto width) {
    cuda::RouterKernel<decltype(width)::value>
        <<<cuda::Blocks(tokens), cuda::kThreads, 0, cuda::Raw(stream)>>>(kernel);
  });
  cuda::Launched("Router");
}

void CudaBackend::RouterBackward(Stream& stream, const RouterBackwardArgs& args) {
  const int64_t tokens = args.logits.rows(), experts = args.logits.cols();
  if (tokens == 0) return;
  CHECK_LE(args.spec.top_k, cuda::kMaxTopK);
  int32_t* starts = nullptr;
  if (args.balance_coefficients) {
    const int64_t bytes = static_cast<int64_t>(args.sequence_starts.size_bytes());
    starts = static_cast<int32_t*>(Scratch(bytes));
    CUDA_OK(cudaMemcpyAsync(starts, args.sequence_starts.data(), bytes, cudaMemcpyHostToDevice,
                            cuda::Raw(stream)));
  }
  const cuda::RouterBackwardKernelArgs kernel{.spec = args.spec,
                                              .tokens = tokens,
                                              .experts = static_cast<int>(experts),
                                              .logits = cuda::RowsOf(args.logits),
                                              .scores = cuda::RowsOf(args.scores),
                                              .chosen = cuda::Data<const int32_t>(args.experts),
                                              .chosen_stride = args.experts.stride,
                                              .dweights = cuda::RowsOf(args.dweights),
                                              .balance = cuda::RowsOf(args.balance_coefficients),
                                              .starts = starts,
                                              .num_starts = static_cast<int>(args.sequence_starts.size()),
                                              .z = args.z_coefficient,
                                              .dlogits = cuda::Data<float>(args.dlogits),
                                              .dlogits_stride = args.dlogits.stride};
  cuda::ForWidth(experts, [&](auto width) {
    cuda::RouterBackwardKernel<decltype(width)::value>
        <<<cuda::Blocks(tokens), cuda::kThreads, 0, cuda::Raw(stream)>>>(kernel);
  });
  cuda::Launched("RouterBackward");
}

}  // namespace moebius
