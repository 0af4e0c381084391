// Values for all integers: "x = \frac{\pi}{4} + k\pi, k \in \mathbb{Z}".
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "rl/math/identity.h"

namespace moebius::math {

struct Family {
  std::string text;    // without the condition
  std::string letter;  // that stands for every integer
};
// Of a text that ends in such a condition, by signs or by words ("where k is an integer"), on a letter that
// it uses.
std::optional<Family> ReadFamily(std::string_view ascii);

// Whether two expressions linear in `letter` have the same values over the integers; undecided for others.
GradeResult CompareFamilies(Work& work, int gold, int answer, const std::string& letter);

}  // namespace moebius::math
