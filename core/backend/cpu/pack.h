// Rows of a tensor copied into thread scratch in the form that tile products (tile-inl.h) read, and the
// layout of that scratch.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace moebius {

// Two bf16 that follow each other in a reduction, the first in the low half.
struct BF16Pair {
  uint32_t bits = 0;
};
// The same for AMX, which multiplies them by tiles (amx-inl.h).
struct AmxPair : BF16Pair {};
template <class Unit>
inline constexpr int64_t kElements = 1;
template <>
inline constexpr int64_t kElements<BF16Pair> = 2;
template <>
inline constexpr int64_t kElements<AmxPair> = 2;

// Columns and rows of scratch tiles are padded to this many elements: whole panels on every target.
inline constexpr int64_t kPad = 32;
inline constexpr int64_t Padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

// Hands out pieces of one block of memory; made with nullptr first, bytes() says how large the block must be.
class Carver {
 public:
  explicit Carver(void* memory) : base_(static_cast<char*>(memory)) {}
  template <typename T>
  T* Take(int64_t count) {
    char* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return reinterpret_cast<T*>(piece);
  }
  int64_t bytes() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace moebius
