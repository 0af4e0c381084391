// Sequences with dots: 1, 3, 5, ..., 99.
#pragma once

#include <optional>
#include <vector>

#include "rl/math/identity.h"

namespace moebius::math {

// first, first + step, ..., last.
struct Progression {
  int first = -1, step = -1, last = -1;
  bool finite = false;
};

// Reads "a, b, [more,] ..." with or without a last element. None if the written terms are no arithmetic
// progression.
std::optional<Progression> ReadProgression(Work& work, const std::vector<int>& elements);

// The elements in full: of a finite progression of numbers with at most 300 terms, or of a list without dots.
std::optional<std::vector<int>> Expand(Work& work, const std::optional<Progression>& progression,
                                       const std::vector<int>& elements);

}  // namespace moebius::math
