// Choosing the next token from logits: temperature, top-k, top-p. Random numbers are a pure function of
// (seed, sequence, position), so a token does not depend on which other sequences are decoded beside it. This
// is one sequence on the host; a batch on any device is batch_sampler.h's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/backend/draw.h"
#include "core/base/random.h"
#include "core/base/status.h"

namespace moebius {

// In this order, as Hugging Face applies them: logits / temperature; the top_k best (equal logits: the lower
// ids); the smallest set of the best whose probability reaches top_p; one drawn in proportion.
struct SamplingParams {
  double temperature = 1;  // 0: greedy, the lowest id among equals
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // in (0, 1]
  uint64_t seed = 0;
};

// UsageError when a value is outside its range.
absl::Status Validate(const SamplingParams& params);

// `logprob` is the model's own, as `score` gives it, `sampling_logprob` that under the distribution drawn
// from; both are NaN when not asked for. With LogProbs::kAsTrained `logprob` is what the kernel of training
// gives: minus the cross-entropy at Sampler::inverse_temperature(), without top_k and top_p. Only
// batch_sampler.h computes that one.
using SampledToken = DrawnToken;

// The error where a token of `position` has no id.
absl::Status NotFiniteError(int64_t position);

class Sampler {
 public:
  // `sequence` numbers sequences of one seed; below 2^32.
  Sampler(const SamplingParams& params, uint64_t sequence, LogProbs logprobs);

  // logits [V]. `position` of the new token in its sequence. BadNumbersError when a logit is NaN or
  // +infinity, or all are -infinity.
  absl::StatusOr<SampledToken> Sample(std::span<const float> logits, int64_t position);

  // What a device's DrawTokens needs instead, where the whole vocabulary may be drawn.
  bool DrawsFromAll(int64_t vocab) const;
  float scale() const { return DrawScale(params_.temperature); }
  // CrossEntropyArgs::inverse_temperature of this temperature; 1 for greedy.
  float inverse_temperature() const { return params_.temperature == 0 ? 1 : scale(); }
  double Uniform(int64_t position) const;
  LogProbs logprobs() const { return logprobs_; }

 private:
  // An index of candidates_.
  DrawnIndex DrawAmong(std::span<const float> logits, float max, double uniform);
  template <typename Better>
  void KeepTopP(const Better& better);

  SamplingParams params_;
  RandomStream random_;
  uint64_t sequence_;
  LogProbs logprobs_;
  // Kept between calls for their memory.
  std::vector<float> weights_;
  std::vector<int32_t> candidates_;
};

}  // namespace moebius
