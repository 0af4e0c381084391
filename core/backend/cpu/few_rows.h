// Products of few rows with a weight, x [m, k] · w [n, k]ᵀ, without packing the weight: rows of x lie in the
// lanes of vectors, and the weight is read once, as it lies. Every element has the bits of gemm.h's kernel,
// so a row does not notice which of the two made it; the matrix-vector kernels of matvec.h, which sum in
// another order, are faster up to some eight rows of bf16.
#pragma once

#include <cstdint>

#include "core/backend/cpu/gemm.h"

namespace moebius {

// Beyond this many rows the kernel that packs its operands is faster.
inline constexpr int64_t kFewRows = 64;

// Whether the product has this form.
bool IsFewRows(const Product& product);

// Step 1: columns [begin, end) of a, widened and turned, into `packed` (64-byte aligned), which is for all
// columns of a.
int64_t FewRowsPackedBytes(int64_t m, int64_t k);
void FewRowsPack(const Product& product, int64_t begin, int64_t end, float* packed);

// Step 2: columns [begin, end) of the product, in the calling thread.
void FewRowsCompute(const Product& product, const float* packed, int64_t begin, int64_t end);

}  // namespace moebius
