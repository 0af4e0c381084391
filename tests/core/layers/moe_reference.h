// The mixture-of-experts layer in plain double precision, straight from the formulas (deepseek.md 1.2
// and 1.3).
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend/kernel_args.h"

namespace moebius {

using Doubles = std::vector<double>;

struct RoutedToken {
  Doubles scores;                // [experts]
  std::vector<int32_t> experts;  // [top_k], by falling selection score
  Doubles weights;               // [top_k]
  double lse = 0;                // log of the sum of exponentials of the logits
};
// router [experts, hidden]; bias [experts] or empty.
RoutedToken RouteInDouble(const RouterSpec& spec, const float* x, int64_t hidden,
                          const std::vector<float>& router, const std::vector<float>& bias);

// Sum over sequences of sum over experts of f P. chosen_only: f counts the experts really chosen instead of
// the top k of the scores alone.
double BalanceInDouble(const std::vector<RoutedToken>& tokens, const std::vector<int32_t>& sequence_starts,
                       int64_t k, bool chosen_only);

// down · (silu(gate x) ⊙ up x); gate_up [2 width, hidden], down [hidden, width].
Doubles SwiGluInDouble(const float* x, int64_t hidden, const float* gate_up, const float* down,
                       int64_t width);

}  // namespace moebius
