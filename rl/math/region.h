// Sets of real numbers: intervals, unions, inequalities in one variable, and finite sets of points.
#pragma once

#include "rl/math/identity.h"

namespace moebius::math {

// True if the node can only be meant as a set of reals: an inequality, a union, a half-open interval, R, ...
bool IsRegion(const Work& work, int id);

// Compares two nodes as sets of reals, each an interval, inequality (linear, quadratic or |f| < c), union,
// set of points, ... Undecided if one is no such set or its bounds cannot be ordered.
GradeResult CompareRegions(Work& work, int a, int b);

}  // namespace moebius::math
