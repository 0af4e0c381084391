// Problems to measure with: a task whose knobs allow few of them draws each many times, which would count
// its answer as often and make intervals too narrow.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace moebius {

// The first `most` of the draws 0, 1, ... whose texts differ from all before, or as many as 10 * `most` draws
// have.
std::vector<uint64_t> DistinctDraws(int64_t most, const std::function<std::string(uint64_t draw)>& text);

}  // namespace moebius
