// Real roots of polynomials up to degree 2 in one symbol, with constants of any kind as coefficients.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "rl/math/identity.h"

namespace moebius::math {

struct Roots {
  std::vector<int> at;  // nodes, in rising order, each once
  int degree = 0;       // 1 or 2
  int sign = 0;         // of the leading coefficient
};

// Roots of `id` in `symbol`, its only one. None if it is not shown to be linear or quadratic.
std::optional<Roots> SolveQuadratic(Work& work, int id, const std::string& symbol);
// A copy of `id` with `value` for the symbol.
int Substitute(Tree& tree, int id, const std::string& symbol, int value);

}  // namespace moebius::math
