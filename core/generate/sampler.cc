#include "core/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/strings.h"

namespace moebius {

absl::Status Validate(const SamplingParams& p) {
  if (!(p.temperature >= 0 && std::isfinite(p.temperature))) {
    return UsageError(Concat("temperature = ", p.temperature, " is out of range; use 0 (greedy) or more"));
  }
  if (p.top_k < 0) return UsageError(Concat("top_k = ", p.top_k, " is out of range; use 0 (all) or more"));
  if (!(p.top_p > 0 && p.top_p <= 1))
    return UsageError(
        Concat("top_p = ", p.top_p,
               " is out of range; it must be in (0, 1]: 1 keeps all tokens, temperature 0 takes the best"));
  return absl::OkStatus();
}

Sampler::Sampler(const SamplingParams& params, uint64_t sequence, LogProbs logprobs)
    : params_(params), random_(params.seed, "generate"), sequence_(sequence), logprobs_(logprobs) {}

absl::Status NotFiniteError(int64_t position) {
  return BadNumbersError(
      Concat("the logits of position ", position,
             " are not finite; the weights are damaged or training has diverged; use an earlier checkpoint"));
}

bool Sampler::DrawsFromAll(int64_t vocab) const {
  return params_.temperature == 0 || ((params_.top_k == 0 || params_.top_k >= vocab) && params_.top_p >= 1);
}

double Sampler::Uniform(int64_t position) const {
  return random_.Uniform(sequence_ << 32 | static_cast<uint64_t>(position));
}

absl::StatusOr<SampledToken> Sampler::Sample(std::span<const float> logits, int64_t position) {
  weights_.resize(logits.size());
  SampledToken token;
  if (DrawsFromAll(std::ssize(logits))) {
    token = DrawToken(logits, scale(), Uniform(position), logprobs_, weights_);
  } else if (const float max = logits[ArgMax(logits)]; CanDraw(logits, max)) {
    const DrawnIndex drawn = DrawAmong(logits, max, Uniform(position));
    token.id = candidates_[drawn.index];
    if (logprobs_ != LogProbs::kNo) {
      token.logprob = static_cast<float>(logits[token.id] - LogSumExp(logits, max));
      token.sampling_logprob = static_cast<float>(drawn.logprob);
    }
  }
  if (token.id < 0) return NotFiniteError(position);
  return token;
}

DrawnIndex Sampler::DrawAmong(std::span<const float> logits, float max, double uniform) {
  DrawWeights(logits, max, scale(), weights_);
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
  return DrawIndex(std::span(weights_).first(candidates_.size()), uniform);
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
