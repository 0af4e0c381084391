#include "core/backend/draw.h"

#include <algorithm>
#include <bit>
#include <cmath>

// Loops that are compiled for AVX2 too and chosen by the loader: wider vectors, the same arithmetic (AVX2
// alone has no fused multiply-add, which would round otherwise). ThreadSanitizer is not awake yet at that
// time.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define MOEBIUS_WIDE_TOO __attribute__((target_clones("default", "avx2")))
#else
#define MOEBIUS_WIDE_TOO
#endif

namespace moebius {
namespace {

constexpr int64_t kBlock = 64;      // in double between blocks, so that a draw is exact to a float's ulp
constexpr double kMaxScale = 1e30;  // of 1 / temperature

// exp(x) for x <= 0 to 2e-7 relative, 0 below -87: plain arithmetic that the compiler turns into SIMD. The
// library's exp over a whole vocabulary would cost more than a small model's step.
__attribute__((always_inline)) inline float Exp(float x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kHigh = 0.693359375f, kLow = -2.12194440e-4f;  // ln 2 in two parts
  constexpr float kRound = 12582912.0f;                          // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = clamped * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kHigh) - n * kLow;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = p * r * r + r + 1.0f;
  const uint32_t bits = (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound) + 127) << 23;
  return x < -87.0f ? 0.0f : e * std::bit_cast<float>(bits);
}

__attribute__((always_inline)) inline double BlockSum(std::span<const float> x, int64_t begin) {
  const int64_t end = std::min<int64_t>(begin + kBlock, x.size());
  float lanes[8] = {};
  int64_t i = begin;
  for (; i + 8 <= end; i += 8) {
    for (int q = 0; q < 8; ++q) lanes[q] += x[i + q];
  }
  for (; i < end; ++i) lanes[(i - begin) % 8] += x[i];
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

MOEBIUS_WIDE_TOO double Sum(std::span<const float> x) {
  double sum = 0;
  for (int64_t i = 0; i < std::ssize(x); i += kBlock) sum += BlockSum(x, i);
  return sum;
}

MOEBIUS_WIDE_TOO bool AnyNaN(std::span<const float> x) {
  int bad = 0;
  for (const float v : x) bad |= v != v;
  return bad != 0;
}

}  // namespace

float DrawScale(double temperature) {
  return temperature == 0 ? -1.0f : static_cast<float>(std::min(1 / temperature, kMaxScale));
}

MOEBIUS_WIDE_TOO int64_t ArgMax(std::span<const float> x) {
  float lanes[16];
  std::fill(std::begin(lanes), std::end(lanes), -std::numeric_limits<float>::infinity());
  const int64_t n = x.size();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int q = 0; q < 16; ++q) lanes[q] = lanes[q] < x[i + q] ? x[i + q] : lanes[q];
  }
  float max = *std::max_element(std::begin(lanes), std::end(lanes));
  for (; i < n; ++i) max = max < x[i] ? x[i] : max;
  const auto at = std::find(x.begin(), x.end(), max);
  return at == x.end() ? 0 : at - x.begin();
}

bool CanDraw(std::span<const float> logits, float max) { return std::isfinite(max) && !AnyNaN(logits); }

MOEBIUS_WIDE_TOO void DrawWeights(std::span<const float> x, float max, float scale, std::span<float> out) {
  const float* from = x.data();
  float* to = out.data();
  const int64_t n = x.size();
  for (int64_t i = 0; i < n; ++i) to[i] = Exp((from[i] - max) * scale);
}

MOEBIUS_WIDE_TOO double LogSumExp(std::span<const float> logits, float max) {
  double sum = 0;
  float block[kBlock];
  for (int64_t i = 0; i < std::ssize(logits); i += kBlock) {
    const int64_t n = std::min<int64_t>(kBlock, logits.size() - i);
    for (int64_t j = 0; j < n; ++j) block[j] = Exp(logits[i + j] - max);
    sum += BlockSum({block, static_cast<size_t>(n)}, 0);
  }
  return max + std::log(sum);
}

DrawnIndex DrawIndex(std::span<const float> weights, double uniform) {
  const double total = Sum(weights);
  const double target = uniform * total;
  double sum = 0;
  int64_t begin = 0;
  for (; begin + kBlock < std::ssize(weights); begin += kBlock) {
    const double block = BlockSum(weights, begin);
    if (sum + block > target) break;
    sum += block;
  }
  // Rounding may leave the target beyond the last weight: then the last index that has any.
  int64_t chosen = -1;
  for (int64_t i = begin; i < std::ssize(weights); ++i) {
    if (weights[i] <= 0) continue;
    chosen = i;
    sum += weights[i];
    if (sum > target) break;
  }
  if (chosen < 0) {
    for (chosen = begin; chosen > 0 && weights[chosen] <= 0;) --chosen;
  }
  return {.index = chosen, .logprob = std::log(weights[chosen] / total)};
}

DrawnToken DrawToken(std::span<const float> logits, float scale, double uniform, LogProbs logprobs,
                     std::span<float> weights) {
  DrawnToken token;
  const int64_t best = ArgMax(logits);
  const float max = logits[best];
  if (!CanDraw(logits, max)) return token;
  DrawnIndex drawn{.index = best, .logprob = 0};
  if (scale >= 0) {
    DrawWeights(logits, max, scale, weights);
    drawn = DrawIndex(weights, uniform);
  }
  token.id = static_cast<int32_t>(drawn.index);
  if (logprobs != LogProbs::kNo) {
    token.logprob = static_cast<float>(logits[token.id] - LogSumExp(logits, max));
    token.sampling_logprob = static_cast<float>(drawn.logprob);
  }
  return token;
}

}  // namespace moebius
