#include "tests/core/layers/moe_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moebius {
namespace {

// Indices of the k largest, falling; the lower index on a tie.
std::vector<int32_t> TopK(const Doubles& values, int64_t k) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  order.resize(k);
  return order;
}

}  // namespace

RoutedToken RouteInDouble(const RouterSpec& spec, const float* x, int64_t hidden,
                          const std::vector<float>& router, const std::vector<float>& bias) {
  const int64_t experts = router.size() / hidden;
  RoutedToken out;
  Doubles logits(experts, 0.0);
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t i = 0; i < hidden; ++i) logits[e] += static_cast<double>(x[i]) * router[e * hidden + i];
  }
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - top);
  out.lse = top + std::log(sum);
  for (const double logit : logits) {
    out.scores.push_back(spec.scoring == Scoring::kSigmoid ? 1 / (1 + std::exp(-logit))
                                                           : std::exp(logit - out.lse));
  }
  Doubles selection = out.scores;
  for (size_t e = 0; e < bias.size(); ++e) selection[e] += bias[e];

  const int64_t each = experts / spec.num_groups;
  Doubles group_scores;
  for (int64_t g = 0; g < spec.num_groups; ++g) {
    const Doubles members(selection.begin() + g * each, selection.begin() + (g + 1) * each);
    const std::vector<int32_t> best = TopK(members, std::min<int64_t>(each, 2));
    double score = members[best[0]];
    if (spec.scoring == Scoring::kSigmoid && best.size() > 1) score += members[best[1]];
    group_scores.push_back(score);
  }
  const std::vector<int32_t> groups = TopK(group_scores, spec.top_groups);
  for (int64_t e = 0; e < experts; ++e) {
    if (std::find(groups.begin(), groups.end(), e / each) == groups.end()) {
      selection[e] = -std::numeric_limits<double>::infinity();
    }
  }
  out.experts = TopK(selection, spec.top_k);
  double total = 1e-20;
  for (const int32_t e : out.experts) total += out.scores[e];
  for (const int32_t e : out.experts) {
    out.weights.push_back(out.scores[e] / (spec.normalize ? total : 1.0) * spec.scale);
  }
  return out;
}

double BalanceInDouble(const std::vector<RoutedToken>& tokens, const std::vector<int32_t>& starts, int64_t k,
                       bool chosen_only) {
  double out = 0;
  const size_t experts = tokens[0].scores.size();
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const double length = starts[s + 1] - starts[s];
    Doubles f(experts, 0.0), p(experts, 0.0);
    for (int32_t t = starts[s]; t < starts[s + 1]; ++t) {
      const RoutedToken& token = tokens[t];
      for (const int32_t e : chosen_only ? token.experts : TopK(token.scores, k))
        f[e] += experts / (k * length);
      const double sum = std::accumulate(token.scores.begin(), token.scores.end(), 0.0);
      for (size_t e = 0; e < experts; ++e) p[e] += token.scores[e] / sum / length;
    }
    for (size_t e = 0; e < experts; ++e) out += f[e] * p[e];
  }
  return out;
}

Doubles SwiGluInDouble(const float* x, int64_t hidden, const float* gate_up, const float* down,
                       int64_t width) {
  Doubles out(hidden, 0.0);
  for (int64_t i = 0; i < width; ++i) {
    double gate = 0, up = 0;
    for (int64_t c = 0; c < hidden; ++c) {
      gate += static_cast<double>(x[c]) * gate_up[i * hidden + c];
      up += static_cast<double>(x[c]) * gate_up[(width + i) * hidden + c];
    }
    const double h = gate / (1 + std::exp(-gate)) * up;
    for (int64_t c = 0; c < hidden; ++c) out[c] += h * down[c * width + i];
  }
  return out;
}

}  // namespace moebius
