#include "core/generate/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr int64_t kBlock =
    64;  // partial sums: in double between blocks, so that a draw is exact to a float's ulp
constexpr double kMaxScale = 1e30;  // of 1 / temperature: 0 * scale must stay 0
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// exp(x) for x <= 0 to 2e-7 relative, 0 below -87: plain arithmetic that the compiler turns into SIMD. The
// library's exp over a whole vocabulary would cost more than a small model's step.
inline float Exp(float x) {
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

// out[i] = exp((x[i] - max) * scale).
void Exponentials(std::span<const float> x, float max, float scale, std::vector<float>& out) {
  out.resize(x.size());
  const float* from = x.data();
  float* to = out.data();
  const int64_t n = x.size();
  for (int64_t i = 0; i < n; ++i) to[i] = Exp((from[i] - max) * scale);
}

float Scale(const SamplingParams& params) {
  return static_cast<float>(std::min(1 / params.temperature, kMaxScale));
}

double BlockSum(std::span<const float> x, int64_t begin) {
  const int64_t end = std::min<int64_t>(begin + kBlock, x.size());
  float lanes[8] = {};
  int64_t i = begin;
  for (; i + 8 <= end; i += 8) {
    for (int q = 0; q < 8; ++q) lanes[q] += x[i + q];
  }
  for (; i < end; ++i) lanes[(i - begin) % 8] += x[i];
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

double Sum(std::span<const float> x) {
  double sum = 0;
  for (int64_t i = 0; i < std::ssize(x); i += kBlock) sum += BlockSum(x, i);
  return sum;
}

// ln of the sum of exp(logits), the logits untouched.
double LogSumExp(std::span<const float> logits, float max) {
  double sum = 0;
  float block[kBlock];
  for (int64_t i = 0; i < std::ssize(logits); i += kBlock) {
    const int64_t n = std::min<int64_t>(kBlock, logits.size() - i);
    for (int64_t j = 0; j < n; ++j) block[j] = Exp(logits[i + j] - max);
    sum += BlockSum({block, static_cast<size_t>(n)}, 0);
  }
  return max + std::log(sum);
}

// The lowest index of the greatest; NaNs are skipped.
int64_t ArgMax(std::span<const float> x) {
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

bool AnyNaN(std::span<const float> x) {
  int bad = 0;
  for (const float v : x) bad |= v != v;
  return bad != 0;
}

}  // namespace

absl::Status Validate(const SamplingParams& p) {
  if (!(p.temperature >= 0 && std::isfinite(p.temperature))) {
    return UsageError(Concat("temperature = ", p.temperature, " is out of range; use 0 (greedy) or more"));
  }
  if (p.top_k < 0) return UsageError(Concat("top_k = ", p.top_k, " is out of range; use 0 (all) or more"));
  if (!(p.top_p > 0 && p.top_p <= 1))
    return UsageError(Concat("top_p = ", p.top_p, " is out of range; it must be in (0, 1]"));
  return absl::OkStatus();
}

Sampler::Sampler(const SamplingParams& params, uint64_t sequence, LogProbs logprobs)
    : params_(params), random_(params.seed, "generate"), sequence_(sequence), logprobs_(logprobs) {}

absl::StatusOr<SampledToken> Sampler::Sample(std::span<const float> logits, int64_t position) {
  const int64_t best = ArgMax(logits);
  const float max = logits[best];
  if (!std::isfinite(max) || AnyNaN(logits)) {
    return BadNumbersError(
        Concat("the logits of position ", position,
               " are not finite; the weights are damaged or training has diverged; use an earlier "
               "checkpoint"));
  }
  const bool all = (params_.top_k == 0 || params_.top_k >= std::ssize(logits)) && params_.top_p >= 1;
  SampledToken token;
  if (params_.temperature == 0) {
    token.id = static_cast<int32_t>(best);
  } else if (all) {
    Exponentials(logits, max, Scale(params_), weights_);
    token = Draw(position);
  } else {
    token = DrawAmong(logits, max, position);
  }
  if (logprobs_ == LogProbs::kYes) {
    token.logprob = static_cast<float>(logits[token.id] - LogSumExp(logits, max));
  } else {
    token.logprob = token.sampling_logprob = kNaN;
  }
  return token;
}

// Draws an index of weights_ in proportion to its weight, walking the running sum in index order.
SampledToken Sampler::Draw(int64_t position) const {
  const std::span<const float> weights = weights_;
  const double total = Sum(weights);
  const double target = random_.Uniform(sequence_ << 32 | static_cast<uint64_t>(position)) * total;
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
  return {.id = static_cast<int32_t>(chosen),
          .sampling_logprob = static_cast<float>(std::log(weights[chosen] / total))};
}

SampledToken Sampler::DrawAmong(std::span<const float> logits, float max, int64_t position) {
  Exponentials(logits, max, Scale(params_), weights_);
  const auto better = [&](int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  candidates_.resize(logits.size());
  std::iota(candidates_.begin(), candidates_.end(), 0);
  if (params_.top_k > 0 && params_.top_k < std::ssize(candidates_)) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params_.top_k, candidates_.end(), better);
    candidates_.resize(params_.top_k);
  }
  if (params_.top_p < 1) KeepTopP(better);
  // In order of ids, so that a draw does not depend on how they were found.
  std::sort(candidates_.begin(), candidates_.end());
  for (size_t i = 0; i < candidates_.size(); ++i) weights_[i] = weights_[candidates_[i]];
  weights_.resize(candidates_.size());
  SampledToken token = Draw(position);
  token.id = candidates_[token.id];
  return token;
}

template <typename Better>
void Sampler::KeepTopP(const Better& better) {
  const auto mass = [&](auto begin, auto end) {
    double sum = 0;
    for (; begin != end; ++begin) sum += weights_[*begin];
    return sum;
  };
  const double total = mass(candidates_.begin(), candidates_.end());
  // Most of a vocabulary has so little weight that all of it together is not needed.
  const double needless = (1 - params_.top_p) * total / (2 * static_cast<double>(candidates_.size()));
  std::erase_if(candidates_, [&](int32_t id) { return weights_[id] < needless; });
  // [0, low) is kept, [high, end) is not; between them the better half is split off and weighed, again and
  // again.
  int64_t low = 0, high = candidates_.size();
  for (double wanted = params_.top_p * total; high - low > 1;) {
    const auto begin = candidates_.begin();
    const int64_t middle = (low + high) / 2;
    std::nth_element(begin + low, begin + middle, begin + high, better);
    const double half = mass(begin + low, begin + middle);
    if (half >= wanted) {
      high = middle;
    } else {
      wanted -= half;
      low = middle;
    }
  }
  candidates_.resize(high);
}

}  // namespace moebius
