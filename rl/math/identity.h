// Are two scalar expressions the same number, or the same function of their symbols?
#pragma once

#include <optional>

#include "rl/math/equivalence.h"
#include "rl/math/evaluate.h"
#include "rl/math/tree.h"

namespace moebius::math {

// What one grading works on: the tree of both texts, the budget, and what was spent of it.
struct Work {
  Tree tree;
  GradeBudget budget;
  Meter meter;
};

// Constants: exact arithmetic, else balls at growing precision until they exclude zero (different) or lie
// below the separation bound (equal, value.h). With symbols: the same at pseudo-random rational points; one
// point where both are defined and differ shows them different, agreement at all of them is taken as
// identity.
GradeResult CompareScalars(Work& work, int a, int b);

// -1, 0 or 1 for a real constant; none if it is not real, not computable or has symbols.
std::optional<int> SignOf(Work& work, int id);
// The constant's exact value, if it has one.
std::optional<Rational> ExactValue(Work& work, int id);
// True if the constant is one of infinity (sign 1) and minus infinity (sign -1); `sign` may be null.
bool IsInfinite(Work& work, int id, int* sign);
// True if a is c times b for a constant c other than zero, or, with `positive`, a constant above zero. None:
// undecided.
std::optional<bool> Proportional(Work& work, int a, int b, bool positive);

GradeResult Equal(std::string reason);
GradeResult Different(std::string reason);
GradeResult Undecided(std::string reason);

}  // namespace moebius::math
