// Products whose operands are rounded to FP8 (kernel_args.h, Rounding::kFp8): which kernels make which.
//   Hopper, bf16, rows at multiples of 16 bytes: operands in E4M3 (fp8_quantize.h), then cuBLASLt or our own
//   kernel. Everything else: operands rounded but kept in fp32 (RoundToFp8), then the plain kernel.
// Operands live in the call's scratch memory, or where Round has put them.
#pragma once

#include <cuda_runtime.h>

#include <functional>

#include "core/backend/cuda/dense_products.h"
#include "core/backend/cuda/fp8_wgmma.h"
#include "core/backend/cuda/grouped_problem.h"
#include "core/backend/kernel_args.h"

namespace moebius::cuda {

class Fp8Products {
 public:
  using Scratch = std::function<void*(int64_t bytes)>;

  explicit Fp8Products(const cudaDeviceProp& properties) : wgmma_(properties) {}

  // Operands that have been rounded already: what Round wrote, or null.
  struct Operands {
    void* a = nullptr;
    void* b = nullptr;
  };

  // Backend::RoundedBytes and Round.
  int64_t RoundedBytes(const TensorView& x, RoundedBy by, int64_t groups) const;
  void Round(cudaStream_t stream, const RoundArgs& args) const;

  // Queue a product; `dense` is used for those that cuBLASLt takes. One batch only. Launch errors end the
  // process.
  void MatMul(cudaStream_t stream, const DenseProduct& product, const Operands& rounded, DenseProducts& dense,
              const Scratch& scratch) const;
  void GroupedMatMul(cudaStream_t stream, const GroupedProblem& problem, const Operands& rounded,
                     const Scratch& scratch) const;

 private:
  Fp8Wgmma wgmma_;
};

}  // namespace moebius::cuda
