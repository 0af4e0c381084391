// Dense products by cuBLASLt. Matrices here are row-major; cuBLASLt sees each as its column-major transpose,
// so it is given cᵀ = op(b)ᵀ · op(a)ᵀ.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <map>

#include "core/tensor/dtype.h"

namespace moebius::cuda {

// A row-major matrix as it is stored: rows lie `stride` elements apart (at least its number of columns),
// matrices of a batch `batch_stride` elements.
struct DenseMatrix {
  const void* data = nullptr;
  int64_t stride = 0;
  int64_t batch_stride = 0;
  bool transposed = false;
};

// c [m, n] (= or +=) op(a) [m, k] · op(b) [k, n] (+ bias [n] f32), `batch` times. a and b are act, fp32 or
// bf16; c is fp32 or act; += needs fp32. m, n, k and batch are positive.
// With act E4M3: a is not transposed and b is, the scales are those of fp8_quantize.h (b's of blocks or of
// tiles, as a's are), and c is fp32 or bf16.
struct DenseProduct {
  DenseMatrix a;
  DenseMatrix b;
  DenseMatrix c;  // written
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t batch = 1;
  DType act = DType::kF32;
  DType c_type = DType::kF32;
  bool accumulate = false;
  const float* bias = nullptr;
  const float* a_scales = nullptr;
  const float* b_scales = nullptr;
  bool b_in_blocks = false;
};

// fp32 products are fp32 throughout (no TF32); bf16 products are summed in fp32. The algorithm depends on
// sizes, strides and alignment alone, so the same call twice gives the same bits.
class DenseProducts {
 public:
  DenseProducts();
  ~DenseProducts();
  DenseProducts(const DenseProducts&) = delete;
  DenseProducts& operator=(const DenseProducts&) = delete;

  // False, and nothing is done, when cuBLASLt has no algorithm for it: a bias beside a bf16 result, say.
  bool Run(cudaStream_t stream, const DenseProduct& product);

 private:
  using Key = std::array<int64_t, 16>;
  struct Plan {
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t a = nullptr;  // of cuBLASLt's A, which is our b
    cublasLtMatrixLayout_t b = nullptr;
    cublasLtMatrixLayout_t c = nullptr;
    cublasLtMatmulAlgo_t algorithm = {};
    bool possible = false;
  };
  static Key KeyOf(const DenseProduct& product);
  Plan MakePlan(const DenseProduct& product) const;
  static void SetScales(const Plan& plan, const DenseProduct& product);
  void Clear();

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, Plan> plans_;
};

// c [rows, n] = source (or 0) + bias (or 0), summed in fp32; c is fp32 or bf16. `source` [rows, n] f32 may be
// c. finish_rows.cu.
struct FinishRowsArgs {
  const float* source = nullptr;
  int64_t source_stride = 0;
  const float* bias = nullptr;
  void* c = nullptr;
  int64_t c_stride = 0;
  DType c_type = DType::kF32;
  int64_t rows = 0;
  int64_t n = 0;
};
void FinishRows(cudaStream_t stream, const FinishRowsArgs& args);

}  // namespace moebius::cuda
