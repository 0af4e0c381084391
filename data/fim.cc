#include "data/fim.h"

#include <utility>

#include "core/base/random.h"

namespace moebius {

std::optional<FimCuts> ChooseFimCuts(uint64_t seed, int64_t document_index, double rate, int64_t length) {
  const RandomStream stream(seed, "data/fim");
  const uint64_t draw = static_cast<uint64_t>(document_index) * 3;
  if (length < 1 || !(stream.Uniform(draw) < rate)) return std::nullopt;
  const auto positions = static_cast<uint64_t>(length) + 1;
  auto begin = static_cast<int64_t>(stream.Below(draw + 1, positions));
  auto end = static_cast<int64_t>(stream.Below(draw + 2, positions));
  if (begin > end) std::swap(begin, end);
  return FimCuts{begin, end};
}

}  // namespace moebius
