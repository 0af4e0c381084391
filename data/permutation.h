// A permutation of [0, size) that is computed, not stored: shuffling needs no memory and any position can be
// asked for. A Feistel network on the next even number of bits, walked until it lands inside (Black and
// Rogaway, "Ciphers with arbitrary finite domains", 2002), with Philox as round function.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/random.h"

namespace moebius {

class KeyedPermutation {
 public:
  // Another permutation for every (seed, name). size >= 1.
  KeyedPermutation(uint64_t size, uint64_t seed, std::string_view name);

  // Where `index` < size goes; a bijection of [0, size).
  uint64_t operator()(uint64_t index) const;

 private:
  RandomStream stream_;
  uint64_t size_;
  int half_bits_;
};

}  // namespace moebius
