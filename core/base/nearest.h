// "Did you mean": the closest of a set of names, for unknown flags, verbs and recipe fields.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moebius {

// The candidate with the smallest edit distance to `name` (first on a tie), or "" when none is close: the
// distance is above max(2, a third of the longer name).
std::string Nearest(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace moebius
