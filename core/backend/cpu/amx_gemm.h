// Products of bf16 by the tiles of AMX, single-threaded, for the pool's tasks: the same two steps as
// gemm.h's. Both operands are packed into tiles, in the order in which they are multiplied; sums are fp32,
// and pass through memory between blocks of k. The bits of a row depend on k and on the kind of the result,
// not on the other rows.
#pragma once

#include <cstdint>

#include "core/backend/cpu/gemm.h"

namespace moebius {

// Step 1: b [k, n] in tiles, at `packed` (64-byte aligned).
int64_t AmxPackedBytes(int64_t k, int64_t n);
void AmxPack(const GemmOperand& b, int64_t k, int64_t n, void* packed);

// Step 2: the product with b as packed by step 1; HasAmx(). `scratch` (64-byte aligned) is for this call
// alone.
int64_t AmxScratchBytes(const Product& product);
void AmxCompute(const Product& product, const void* packed_b, void* scratch);

}  // namespace moebius
