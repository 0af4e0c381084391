// Policy objectives of the GRPO family over the log-probabilities of answers' tokens: the loss, and its
// gradient with respect to the live log-probabilities, which is all that the model's backward needs of it.
//
// Written per token: r = exp(live - proximal), A the advantage. Sources: Schulman et al. 2017 (clipping),
// Shao et al. 2024 (GRPO, KL), Yu et al. 2025 (DAPO), Liu et al. 2025 (Dr.GRPO), Zheng et al. 2025 (GSPO),
// MiniMax 2025 (CISPO), Ye et al. 2020 (dual clip); KL estimators as in Schulman's note "Approximating KL
// divergence".
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace moebius {

enum class Surrogate {
  kClipped,  // -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)
  kGspo,  // the same with one ratio an answer, exp(mean over its tokens of log r); with kAnswers it is GSPO's
  kCispo,  // -stop_gradient(clip(r, 1 - clip_low, 1 + clip_high)) A live: no token loses its gradient
  kPlain,  // -A live: one update a batch, where r is 1
};

// x = live - reference. k1, k2 and k3 are values; what a loss needs is a gradient: k1's is zero in
// expectation, k3's is that of the other direction, k2's is the true one. kTrue has k3's value (unbiased,
// never negative) and k2's gradient.
enum class KlKind { kNone, kK1, kK2, kK3, kTrue };

enum class Normaliser {
  kTokens,       // sum over tokens / tokens of the global batch
  kAnswers,      // sum over answers of the mean over tokens / answers of the global batch
  kFixedLength,  // sum over tokens / (answers of the global batch * maximum_length)
};

struct PolicyObjective {
  Surrogate surrogate = Surrogate::kClipped;
  double clip_low = 0.2;   // infinite: no lower bound
  double clip_high = 0.2;  // infinite: no upper bound
  double dual_clip = 0;    // > 1: where A < 0 a token costs at most -dual_clip * A; 0: no such bound
  KlKind kl = KlKind::kNone;
  double kl_coefficient = 0;
  Normaliser normaliser = Normaliser::kTokens;
  int64_t maximum_length = 0;  // for kFixedLength
  // Weights of tokens by rho = exp(proximal - behaviour), for answers that an older or another policy
  // sampled.
  double truncate_at = std::numeric_limits<double>::infinity();  // min(rho, truncate_at)
  double keep_from = 0;                                          // outside [keep_from, keep_to]: 0 (IcePop)
  double keep_to = std::numeric_limits<double>::infinity();
  bool correct_mismatch = false;  // use these weights at all
};

// Some answers of the global batch, their tokens one after another.
struct PolicyTokens {
  std::span<const int64_t> lengths;
  std::span<const double> advantages;
  std::span<const double> live, proximal, behaviour, reference;  // reference may be empty without KL
};

// Of the whole batch, over all ranks and microbatches, so that no split changes anything.
// Means: of an update, whose batch is one of several parts, they are fractions.
struct BatchTotals {
  double answers = 0;
  double tokens = 0;
};

// Sums, not means: parts of a batch add up.
struct PolicyLoss {
  double loss = 0;                   // this part's share of the batch's loss
  std::vector<double> gradient;      // d loss / d live of every token
  double kl = 0;                     // sum over tokens of k3
  double ratio = 0, ratio_high = 0;  // sum of r; largest r
  int64_t clipped_low = 0, clipped_high = 0,
          clipped_dual =
              0;  // tokens whose policy gradient a bound has removed; kCispo: whose weight it has changed
};

PolicyLoss ComputePolicyLoss(const PolicyObjective& objective, const BatchTotals& totals,
                             const PolicyTokens& tokens);

}  // namespace moebius
