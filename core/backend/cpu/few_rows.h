// Products of few rows with a weight, x [m, k] · w [n, k]ᵀ, without packing the weight: rows of x lie in the
// lanes of vectors, and the weight is read once, as it lies (bf16 is widened, some columns at a time, for all
// rows of x). Every element has the bits of gemm.h's kernel, so a row does not notice which of the two made
// it; the matrix-vector kernels of matvec.h sum in another order and are faster where CpuBackend::UsesMatVec
// says so.
#pragma once

#include <cstdint>

#include "core/backend/cpu/gemm.h"

namespace moebius {

// Beyond this many rows the kernel that packs its operands is faster.
inline constexpr int64_t kFewRows = 64;
inline constexpr int64_t kFewRowsColumns = 24;  // whole tiles of every target's kernel

// Whether the product has this form.
bool IsFewRows(const Product& product);

// Columns [begin, end) of the product, in the calling thread. `packed` is aᵀ, packed by GemmPack; `scratch`
// (64-byte aligned) is for this call alone.
int64_t FewRowsScratchBytes(const Product& product);
void FewRowsCompute(const Product& product, const float* packed, int64_t begin, int64_t end, void* scratch);

}  // namespace moebius
