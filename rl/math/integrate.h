// Definite integrals with rigorous bounds, by Arb's adaptive Gauss-Legendre quadrature.
#pragma once

#include <map>
#include <string>

#include "rl/math/evaluate.h"
#include "rl/math/tree.h"

namespace moebius::math {

struct Integrand {
  const Tree& tree;
  const std::map<std::string, Rational>& values;  // of every symbol but `variable`
  const std::string& variable;
  int body;
};

// False with `why` if the integrand has an operation that is not covered, or the quadrature does not settle
// within its evaluations (a pole between the limits).
bool Integrate(const Integrand& integrand, const Ball& lower, const Ball& upper, slong prec, Meter* meter,
               Ball* out, std::string* why);

}  // namespace moebius::math
