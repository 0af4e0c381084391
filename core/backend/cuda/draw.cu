// Tokens from logits: core/backend/draw.cc once more, in the same order of operations, so that both devices
// draw the same token. Products and sums that the compiler would fuse are spelled out.
#include <climits>

#include "core/backend/cuda/kernel.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlock = 64;  // weights that are summed in fp32
constexpr int kLanes = 8;   // of such a block; a thread sums one

struct DrawProblem {
  const float* logits;
  int64_t stride;
  int vocab;
  const int32_t* rows;
  const float* scales;
  const double* uniforms;
  int32_t* tokens;
  float* logprobs;  // null: not wanted
  float* sampling_logprobs;
};

// exp(x) for x <= 0, as draw.cc has it.
__device__ __forceinline__ float Exp(float x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kHigh = 0.693359375f, kLow = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = __fadd_rn(__fmul_rn(clamped, kLog2E), kRound);
  const float n = __fsub_rn(shifted, kRound);
  const float r = __fsub_rn(__fsub_rn(clamped, __fmul_rn(n, kHigh)), __fmul_rn(n, kLow));
  float p = 1.9875691500e-4f;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
  const float e = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
  const unsigned bits = (__float_as_uint(shifted) - __float_as_uint(kRound) + 127) << 23;
  return x < -87.0f ? 0.0f : __fmul_rn(e, __uint_as_float(bits));
}
__device__ __forceinline__ float Weight(float x, float max, float scale) {
  return Exp(__fmul_rn(__fsub_rn(x, max), scale));
}

struct Best {
  float value;
  int index;

  __device__ __forceinline__ void Take(float x, int i) {
    if (x > value || (x == value && i < index)) value = x, index = i;
  }
};

// The greatest logit and its lowest index, known to every thread; false when it is not finite or any logit is
// NaN. `of_warps` is shared.
__device__ bool FindBest(const float* row, int vocab, Best* of_warps, Best& best) {
  bool bad = false;
  best = {-INFINITY, INT_MAX};
#pragma unroll 8
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    const float x = row[i];
    bad |= isnan(x);
    best.Take(x, i);
  }
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, best.value, step);
    best.Take(value, __shfl_xor_sync(kAllLanes, best.index, step));
  }
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = best;
  bad = __syncthreads_or(bad);
  for (int w = 0; w < kWarps; ++w) best.Take(of_warps[w].value, of_warps[w].index);
  return !bad && isfinite(best.value);
}

// sums[b] = the weights of blocks 0 to b. Eight threads sum a block, as its lanes; then one thread adds the
// blocks, in order. `sums` holds a number a block and may be read after the call.
__device__ void RunningSums(const float* row, int vocab, int blocks, float max, float scale, double* sums) {
  __syncthreads();  // what the last call left has been read
  for (int first = 0; first < blocks; first += kThreads / kLanes) {
    const int block = first + threadIdx.x / kLanes;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kBlock / kLanes; ++j) {
      const int64_t i = static_cast<int64_t>(block) * kBlock + j * kLanes + threadIdx.x % kLanes;
      if (i < vocab) sum = __fadd_rn(sum, Weight(row[i], max, scale));
    }
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, step));
    if (threadIdx.x % kLanes == 0 && block < blocks) sums[block] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    constexpr int kAhead = 8;  // reads that do not wait for the sum
    double sum = 0;
    int b = 0;
    for (; b + kAhead <= blocks; b += kAhead) {
      double next[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) next[j] = sums[b + j];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) sums[b + j] = sum += next[j];
    }
    for (; b < blocks; ++b) sums[b] = sum += sums[b];
  }
  __syncthreads();
}

// The token whose running sum exceeds target, by the whole block; the result is thread 0's.
__device__ int Walk(const float* row, int vocab, int blocks, float max, float scale, const double* sums,
                    double target, float& weight) {
  __shared__ float weights[kBlock];
  int low = 0, high = blocks - 1;  // the first block, but the last, whose running sum exceeds the target
  while (low < high) {
    const int middle = (low + high) / 2;
    if (sums[middle] > target) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  double sum = low > 0 ? sums[low - 1] : 0;
  int chosen = -1;
  // Rounding may leave the target beyond a block's last weight: on to the next, or the last that has any.
  bool found = false;
  for (int block = low; block < blocks && !found; ++block) {
    const int first = block * kBlock;
    if (threadIdx.x < kBlock) {
      const int i = first + static_cast<int>(threadIdx.x);
      weights[threadIdx.x] = i < vocab ? Weight(row[i], max, scale) : 0.0f;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int j = 0; j < kBlock && !found; ++j) {
        if (weights[j] <= 0) continue;
        chosen = first + j;
        weight = weights[j];
        sum += weight;
        found = sum > target;
      }
    }
    found = __syncthreads_or(found);
  }
  if (threadIdx.x == 0 && chosen < 0) {
    for (chosen = low * kBlock;; --chosen) {
      weight = Weight(row[chosen], max, scale);
      if (chosen == 0 || weight > 0) break;
    }
  }
  return chosen;
}

// A block draws one token. Dynamic shared memory: a double a block of weights.
__global__ void __launch_bounds__(kThreads) DrawKernel(const DrawProblem p) {
  extern __shared__ double sums[];
  __shared__ Best of_warps[kWarps];
  const int at = blockIdx.x;
  const float* row = p.logits + p.rows[at] * p.stride;
  const float scale = p.scales[at];
  const int blocks = (p.vocab + kBlock - 1) / kBlock;
  const bool wants_logprobs = p.logprobs != nullptr;
  Best best;
  if (!FindBest(row, p.vocab, of_warps, best)) {
    if (threadIdx.x == 0) {
      p.tokens[at] = -1;
      if (wants_logprobs) p.logprobs[at] = p.sampling_logprobs[at] = NAN;
    }
    return;
  }
  double all = 0;  // the sum of the weights at scale 1
  if (wants_logprobs) {
    RunningSums(row, p.vocab, blocks, best.value, 1, sums);
    all = sums[blocks - 1];
  }
  int chosen = best.index;
  double sampling_logprob = 0;
  if (scale >= 0) {
    if (!wants_logprobs || scale != 1) RunningSums(row, p.vocab, blocks, best.value, scale, sums);
    const double total = sums[blocks - 1];
    float weight = 0;
    chosen = Walk(row, p.vocab, blocks, best.value, scale, sums, p.uniforms[at] * total, weight);
    sampling_logprob = log(weight / total);
  }
  if (threadIdx.x != 0) return;
  p.tokens[at] = chosen;
  if (!wants_logprobs) return;
  p.logprobs[at] = static_cast<float>(row[chosen] - (best.value + log(all)));
  p.sampling_logprobs[at] = static_cast<float>(sampling_logprob);
}

}  // namespace
}  // namespace cuda

void CudaBackend::DrawTokens(Stream& stream, const DrawTokensArgs& args) {
  const int64_t n = args.tokens.elements(), vocab = args.logits.cols();
  if (n == 0) return;
  const int64_t shared = cuda::CeilDiv(vocab, cuda::kBlock) * static_cast<int64_t>(sizeof(double));
  CHECK_LE(shared, int64_t{160} << 10) << "a vocabulary of " << vocab << " tokens";
  cuda::AllowShared(cuda::DrawKernel, shared);
  const cuda::DrawProblem problem{.logits = cuda::Data<const float>(args.logits),
                                  .stride = args.logits.stride,
                                  .vocab = static_cast<int>(vocab),
                                  .rows = cuda::Data<const int32_t>(args.rows),
                                  .scales = cuda::Data<const float>(args.scales),
                                  .uniforms = cuda::Data<const double>(args.uniforms),
                                  .tokens = cuda::Data<int32_t>(args.tokens),
                                  .logprobs = cuda::Data<float>(args.logprobs),
                                  .sampling_logprobs = cuda::Data<float>(args.sampling_logprobs)};
  cuda::DrawKernel<<<static_cast<unsigned>(n), cuda::kThreads, static_cast<size_t>(shared),
                     cuda::Raw(stream)>>>(problem);
  cuda::Launched("DrawTokens");
}

}  // namespace moebius
