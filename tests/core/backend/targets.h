// Which of its targets (AVX3, AVX2, SCALAR) the CPU backend runs in a test program: the best that the
// processor has, or the one that MOEBIUS_TEST_TARGET names in the environment. ctest runs the kernels' tests
// so again.
#pragma once

namespace moebius {

// By how much sums are less exact here: ten times in SCALAR's single chain of roundings, which has no fused
// multiply-add either.
double SumError();

// Lets kernels with AVX512-BF16's instructions run on any processor for as long as it lives. Code for AVX3
// holds the instructions themselves, so a processor that has AVX-512 without them runs the code for AVX2,
// which holds the same arithmetic.
class BF16Anywhere {
 public:
  BF16Anywhere();
  ~BF16Anywhere();
  BF16Anywhere(const BF16Anywhere&) = delete;
  BF16Anywhere& operator=(const BF16Anywhere&) = delete;
};

}  // namespace moebius
