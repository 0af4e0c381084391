#include "rl/tasks/distinct.h"

#include <set>

namespace moebius {

std::vector<uint64_t> DistinctDraws(int64_t most, const std::function<std::string(uint64_t draw)>& text) {
  std::vector<uint64_t> out;
  std::set<std::string> seen;
  for (int64_t i = 0; i < 10 * most && std::ssize(out) < most; ++i) {
    if (seen.insert(text(i)).second) out.push_back(i);
  }
  return out;
}

}  // namespace moebius
