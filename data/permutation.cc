#include "data/permutation.h"

#include <bit>

#include "core/base/check.h"

namespace moebius {
namespace {
// Four make a pseudorandom permutation for large halves; small domains need some more to look shuffled.
constexpr uint64_t kRounds = 8;
}  // namespace

KeyedPermutation::KeyedPermutation(uint64_t size, uint64_t seed, std::string_view name)
    : stream_(seed, name), size_(size), half_bits_((std::bit_width(size - 1) + 1) / 2) {
  CHECK(size >= 1) << "an empty set has no permutation to draw";
}

uint64_t KeyedPermutation::operator()(uint64_t index) const {
  CHECK_LT(index, size_);
  if (size_ == 1) return 0;
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = index >> half_bits_, right = index & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (stream_.Bits(right * kRounds + round) & mask);
      left = right;
      right = mixed;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);
  return index;
}

}  // namespace moebius
