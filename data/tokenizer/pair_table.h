// Hash table from a pair of token ids to the rank and result of its merge; read many times, filled once.
#pragma once

#include <cstdint>
#include <vector>

namespace moebius {

class PairTable {
 public:
  // A merge as one number that orders by rank: rank << 32 | id of the result; kNone for a pair that has none.
  static constexpr uint64_t kNone = ~uint64_t{0};

  explicit PairTable(size_t size) {
    size_t capacity = 16;
    while (capacity < size * 2) capacity *= 2;
    slots_.assign(capacity, Slot{kNone, kNone});
    shift_ = 64 - __builtin_ctzll(capacity);
  }

  // The last merge set for a pair counts.
  void Set(int32_t left, int32_t right, uint64_t merge) {
    Slot& slot = slots_[Place(Key(left, right))];
    slot = {Key(left, right), merge};
  }
  uint64_t Find(int32_t left, int32_t right) const { return slots_[Place(Key(left, right))].merge; }

 private:
  struct Slot {
    uint64_t key, merge;
  };
  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  // The slot of the key, or the empty one where it belongs.
  size_t Place(uint64_t key) const {
    const uint64_t mixed = (key ^ key >> 29) * 0x9E3779B97F4A7C15u;
    size_t i = mixed >> shift_;
    while (slots_[i].key != key && slots_[i].key != kNone) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  int shift_;
};

}  // namespace moebius
