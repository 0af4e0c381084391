// How a token is drawn from logits. DrawToken is what every backend's DrawTokens computes, to the bit (but
// for the last one of a logarithm); the other functions are its parts, of which the host makes top-k and
// top-p (core/generate/sampler.h).
//
// Logit x has the weight Exp((x - max) * scale). A token is the first whose running sum of weights, in order
// of ids, exceeds uniform * total. Sums: blocks of 64 elements; in a block element i is added to lane i % 8,
// in order and in fp32, and the lanes in pairs; blocks are added in order in double.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace moebius {

// kAsTrained: generation (core/generate) replaces `logprob` by what training computes for the token; a draw
// itself takes it for kYes.
enum class LogProbs { kNo, kYes, kAsTrained };

struct DrawnToken {
  int32_t id = -1;  // -1: a logit is NaN or +infinity, or all are -infinity
  float logprob = std::numeric_limits<float>::quiet_NaN();  // ln of the softmax of the logits
  float sampling_logprob =
      std::numeric_limits<float>::quiet_NaN();  // ln of the probability it was drawn with
};

// `scale` is 1 / temperature; negative: the best token, of equals the lowest id. `uniform` is in [0, 1).
// With LogProbs::kNo the two logarithms are NaN. `weights` is scratch, as long as the logits.
DrawnToken DrawToken(std::span<const float> logits, float scale, double uniform, LogProbs logprobs,
                     std::span<float> weights);

// 1 / temperature for DrawToken; bounded, so that 0 * scale stays 0. Temperature 0 is greedy.
float DrawScale(double temperature);

// The lowest index of the greatest; NaNs are skipped.
int64_t ArgMax(std::span<const float> x);
// Whether no logit is NaN and the greatest, `max`, is finite.
bool CanDraw(std::span<const float> logits, float max);
// out[i] = exp((x[i] - max) * scale) to 2e-7 relative, 0 where that is below exp(-87).
void DrawWeights(std::span<const float> x, float max, float scale, std::span<float> out);
// ln of the sum of exp(logits).
double LogSumExp(std::span<const float> logits, float max);

struct DrawnIndex {
  int64_t index;
  double logprob;  // ln of its share of the total
};
DrawnIndex DrawIndex(std::span<const float> weights, double uniform);

}  // namespace moebius
