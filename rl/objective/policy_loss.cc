#include "rl/objective/policy_loss.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace moebius {
namespace {

// A term of the loss and its derivative.
struct Term {
  double value = 0;
  double slope = 0;
};

enum class Bound { kNone, kLow, kHigh, kDual };

// -min(r A, clip(r) A), bounded once more where A < 0; the slope is by log r.
Term Clipped(const PolicyObjective& o, double ratio, double advantage, Bound& bound) {
  const double bounded = std::clamp(ratio, 1 - o.clip_low, 1 + o.clip_high);
  bound = Bound::kNone;
  if (bounded * advantage < ratio * advantage) bound = bounded > ratio ? Bound::kLow : Bound::kHigh;
  double cost = -std::min(ratio * advantage, bounded * advantage);
  if (o.dual_clip > 0 && advantage < 0 && cost > -o.dual_clip * advantage) {
    cost = -o.dual_clip * advantage;
    bound = Bound::kDual;
  }
  return {cost, bound == Bound::kNone ? -ratio * advantage : 0};
}

Term KlTerm(KlKind kind, double x) {
  const double k3 = std::exp(-x) + x - 1;
  switch (kind) {
    case KlKind::kNone:
      return {};
    case KlKind::kK1:
      return {x, 1};
    case KlKind::kK2:
      return {x * x / 2, x};
    case KlKind::kK3:
      return {k3, 1 - std::exp(-x)};
    case KlKind::kTrue:
      return {k3, x};
  }
  return {};
}

double MismatchWeight(const PolicyObjective& o, double rho) {
  if (!o.correct_mismatch) return 1;
  if (rho < o.keep_from || rho > o.keep_to) return 0;
  return std::min(rho, o.truncate_at);
}

// Of each of an answer's tokens, before the KL's coefficient.
double TokenShare(const PolicyObjective& o, const BatchTotals& totals, int64_t length) {
  switch (o.normaliser) {
    case Normaliser::kTokens:
      return 1.0 / totals.tokens;
    case Normaliser::kAnswers:
      return 1.0 / totals.answers / length;
    case Normaliser::kFixedLength:
      return 1.0 / totals.answers / o.maximum_length;
  }
  return 0;
}

void Count(Bound bound, int64_t tokens, PolicyLoss& out) {
  if (bound == Bound::kLow) out.clipped_low += tokens;
  if (bound == Bound::kHigh) out.clipped_high += tokens;
  if (bound == Bound::kDual) out.clipped_dual += tokens;
}

}  // namespace

PolicyLoss ComputePolicyLoss(const PolicyObjective& o, const BatchTotals& totals,
                             const PolicyTokens& tokens) {
  const size_t count = tokens.live.size();
  CHECK_EQ(tokens.advantages.size(), count);
  CHECK_EQ(tokens.proximal.size(), count);
  CHECK_EQ(tokens.behaviour.size(), count);
  CHECK(o.kl == KlKind::kNone || tokens.reference.size() == count) << "a KL term needs the reference policy";
  CHECK(o.normaliser != Normaliser::kFixedLength || o.maximum_length > 0);
  PolicyLoss out;
  out.gradient.assign(count, 0);
  size_t first = 0;
  for (const int64_t length : tokens.lengths) {
    const double share = TokenShare(o, totals, length);
    const auto mismatch = [&](size_t t) {
      return MismatchWeight(o, std::exp(tokens.proximal[t] - tokens.behaviour[t]));
    };
    double answer_log_ratio = 0, answer_weight = 0;
    for (size_t t = first; t < first + length; ++t) {
      answer_log_ratio += (tokens.live[t] - tokens.proximal[t]) / length;
      answer_weight += mismatch(t) / length;
    }
    for (size_t t = first; t < first + length; ++t) {
      const double advantage = tokens.advantages[t];
      const bool whole = o.surrogate == Surrogate::kGspo;  // each token stands for 1/length of its answer
      const double ratio = std::exp(whole ? answer_log_ratio : tokens.live[t] - tokens.proximal[t]);
      Term term;
      Bound bound = Bound::kNone;
      if (o.surrogate == Surrogate::kPlain) {
        term = {-advantage * tokens.live[t], -advantage};
      } else if (o.surrogate == Surrogate::kCispo) {
        const double weight = std::clamp(ratio, 1 - o.clip_low, 1 + o.clip_high);
        if (weight != ratio) bound = weight > ratio ? Bound::kLow : Bound::kHigh;
        term = {-weight * advantage * tokens.live[t], -weight * advantage};
      } else {
        term = Clipped(o, ratio, advantage, bound);
      }
      Count(bound, 1, out);
      const double weight = whole ? answer_weight : mismatch(t);
      out.loss += share * weight * term.value;
      out.gradient[t] += share * weight * term.slope;
      out.ratio += ratio;
      out.ratio_high = std::max(out.ratio_high, ratio);
      if (tokens.reference.empty()) continue;
      const double x = tokens.live[t] - tokens.reference[t];
      const Term kl = KlTerm(o.kl, x);
      out.loss += share * o.kl_coefficient * kl.value;
      out.gradient[t] += share * o.kl_coefficient * kl.slope;
      out.kl += KlTerm(KlKind::kK3, x).value;
    }
    first += length;
  }
  CHECK_EQ(first, count);
  return out;
}

}  // namespace moebius
