// Products of fp32 panels by a SIMD kernel of ours, single-threaded, for the pool's tasks; bf16 operands are
// widened while they are packed. It serves where oneDNN 2.6 is slower or cannot: processors without AVX-512,
// where it reaches 55-85 % of what they can do on our shapes and has no bf16 at all; bf16 where the processor
// multiplies that slower than fp32; batch-invariant products. Elsewhere: products.h.
//
// An element of the result is one chain of fused multiply-adds over ascending k, cut at multiples of a fixed
// block: it does not depend on m, n, or on where in a panel its row lies.
#pragma once

#include <cstdint>

#include "core/tensor/dtype.h"

namespace moebius {

inline constexpr int64_t kGemmBlockK = 256;

// Element (i, j) lies at data[i * stride + j], or at data[j * stride + i] when transposed. fp32 or bf16.
struct GemmOperand {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t stride = 0;
  bool transposed = false;
  bool even_odd = false;  // a of a matrix-vector product, as WidenEvenOdd (matvec.h) makes it

  GemmOperand Rows(int64_t begin) const { return Offset(transposed ? begin : begin * stride); }
  GemmOperand Columns(int64_t begin) const { return Offset(transposed ? begin * stride : begin); }

 private:
  GemmOperand Offset(int64_t elements) const {
    GemmOperand out = *this;
    out.data = static_cast<const char*>(data) + elements * SizeOf(dtype);
    return out;
  }
};

// c [m, n] (= or +=) a [m, k] · b [k, n] (+ bias [n]). c: fp32 or bf16; += needs fp32.
struct GemmResult {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t stride = 0;
  bool accumulate = false;
  const float* bias = nullptr;
};

struct Product {
  GemmOperand a;
  GemmOperand b;
  GemmResult c;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;

  // The part of it that makes these rows, or columns, of c.
  Product Rows(int64_t begin, int64_t count) const;
  Product Columns(int64_t begin, int64_t count) const;
};

// Step 1: b [k, n] in the kernel's own order, at `packed` (64-byte aligned).
int64_t GemmPackedBytes(int64_t k, int64_t n);
void GemmPack(const GemmOperand& b, int64_t k, int64_t n, void* packed);

// Step 2: the product with b as packed by step 1. `scratch` (64-byte aligned) is for this call alone.
int64_t GemmScratchBytes(const Product& product);
void GemmCompute(const Product& product, const void* packed_b, void* scratch);

}  // namespace moebius
