// What fp8_gpu_check.cu runs on: the operands of grouped_gpu_check.cuh in FP8, their way back, cuBLASLt.
#pragma once

#include <cublasLt.h>
#include <cuda_fp8.h>

#include <memory>
#include <string>
#include <vector>

#include "core/backend/cuda/fp8_quantize.h"
#include "core/backend/cuda/fp8_wgmma.h"
#include "tests/bench/grouped_gpu_check.cuh"

namespace moebius::cuda {

__global__ void FillExtremes(Bf16* x, int64_t rows, int64_t cols) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * cols; i += step) {
    const int64_t row = i / cols, column = i % cols;
    // Each square of 128 has a magnitude of its own, from 2^-132 to 2^126.
    const int power = static_cast<int>((row / 128 * 5 + column / 128) * 18 % 259) - 132;
    const float value = RandomAt(i, 7) * exp2f(power / 2) * exp2f(power - power / 2);
    const bool zero = row % 128 == 5 && column >= 128, nan = i % 1013 == 0;
    x[i] = Bf16(nan ? NAN : zero ? 0.0f : value);
  }
}

// out [rows, cols] f32: the source as its FP8 form has it. `at` holds, for kAlongColumn, where among the
// terms a row is, -1 for rows of no group.
__global__ void RestoreKernel(Fp8Source s, Fp8Matrix m, const int64_t* at, float* out) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= s.rows * s.cols) return;
  const int64_t row = i / s.cols, column = i % s.cols, group_rows = s.rows / s.groups;
  int64_t line = row, term = column, scale = column / 128 * m.scale_stride + row;
  if (s.tiles == Fp8Tiles::kAlongColumn) {
    line = column, term = at[row];
    if (term < 0) return;
    scale = term / 128 * m.scale_stride + line;
  } else if (s.tiles == Fp8Tiles::kBlocks) {
    const int64_t g = row / group_rows, r = row % group_rows;
    if (s.transposed) {
      line = g * s.cols + column, term = r;
      scale = (g * ((s.cols + 127) / 128) + column / 128) * m.scale_stride + r / 128;
    } else {
      scale = (g * ((group_rows + 127) / 128) + r / 128) * m.scale_stride + column / 128;
    }
  }
  __nv_fp8_e4m3 value;
  value.__x = m.values[line * m.terms + term];
  out[i] = static_cast<float>(value) * m.scales[scale];
}

inline void Restore(const Fp8Source& s, const Fp8Matrix& m, std::vector<int64_t> offsets, float* out) {
  if (s.offsets == nullptr) offsets = {0, s.rows};
  std::vector<int64_t> at(s.rows, -1);
  int64_t begin = 0;
  for (size_t g = 0; g + 1 < offsets.size(); ++g) {
    for (int64_t row = offsets[g]; row < offsets[g + 1]; ++row) at[row] = begin + row - offsets[g];
    begin += (offsets[g + 1] - offsets[g] + 127) / 128 * 128;
  }
  Buffer<int64_t> positions(s.rows);
  Check(cudaMemcpy(positions.data, at.data(), at.size() * 8, cudaMemcpyHostToDevice));
  RestoreKernel<<<static_cast<int>((s.rows * s.cols + 255) / 256), 256>>>(s, m, positions.data, out);
  Check(cudaGetLastError());
  Check(cudaDeviceSynchronize());
}

// A case's operands in bf16, and in FP8 the same.
class Fp8Operands {
 public:
  Fp8Operands(const Case& c, GroupedProductKind kind)
      : bf16_(c, kind, true), offsets_(c.offsets), problem(bf16_.problem) {
    const GroupedProblem& p = problem;
    const bool forward = kind == GroupedProductKind::kForward,
               weight = kind == GroupedProductKind::kBackwardWeight;
    const Fp8Tiles tiles = weight ? Fp8Tiles::kAlongColumn : Fp8Tiles::kAlongRow;
    const Fp8Source x{.x = p.x,
                      .stride = p.x_stride,
                      .rows = p.rows,
                      .cols = p.in,
                      .tiles = tiles,
                      .groups = p.groups,
                      .offsets = p.groups == 1 && c.offsets[0] == 0 ? nullptr : p.offsets};
    Fp8Source y = x;
    y.x = p.y;
    y.stride = p.y_stride;
    y.cols = p.out;
    const Fp8Source w{.x = p.w,
                      .stride = p.w_stride,
                      .rows = p.groups * p.out,
                      .cols = p.in,
                      .tiles = Fp8Tiles::kBlocks,
                      .transposed = !forward,
                      .groups = p.groups};
    a = forward ? x : y;
    b = weight ? x : w;
    product = {.a = MatrixOf(a),
               .b = MatrixOf(b),
               .c = weight    ? p.w
                    : forward ? p.y
                              : p.x,
               .c_stride = weight    ? p.w_stride
                           : forward ? p.y_stride
                                     : p.x_stride,
               .c_bf16 = !weight,
               .accumulate = weight,
               .m = weight ? p.out : p.rows,
               .n = forward ? p.out : p.in,
               .groups = p.groups,
               .offsets = x.offsets,
               .rows = p.rows};
    memory_ = std::make_unique<Buffer<uint8_t>>(product.a.Bytes() + product.b.Bytes());
    product.a.Place(memory_->data);
    product.b.Place(memory_->data + product.a.Bytes());
  }

  void Reset() { bf16_.Reset(); }

  // Into memory of NaN, so that what is left unwritten shows.
  void Round() {
    Check(cudaMemset(memory_->data, 0x7F, memory_->count));
    Quantize(nullptr, a, product.a);
    Quantize(nullptr, b, product.b);
    Check(cudaGetLastError());
  }

  std::vector<uint8_t> ResultBits() const { return bf16_.ResultBits(); }

  // Against sums in fp64 of what the plain rounding makes of both operands.
  bool Compare(const std::string& what) {
    Buffer<float> first(a.rows * a.cols), second(b.rows * b.cols);
    Check(cudaMemset(first.data, 0, first.count * 4));
    Check(cudaMemset(second.data, 0, second.count * 4));
    RoundToFp8(nullptr, a, first.data);
    RoundToFp8(nullptr, b, second.data);
    Check(cudaGetLastError());
    GroupedProblem rounded = problem;
    rounded.bf16 = false;
    const bool weight = problem.kind == GroupedProductKind::kBackwardWeight;
    const bool forward = problem.kind == GroupedProductKind::kForward;
    (forward ? rounded.x : rounded.y) = first.data;
    (forward ? rounded.x_stride : rounded.y_stride) = a.cols;
    (weight ? rounded.x : rounded.w) = second.data;
    (weight ? rounded.x_stride : rounded.w_stride) = b.cols;
    // A tensor core cuts every addend 13 bits below the largest. Of the 4 x 33 addends of 128 terms about a
    // quarter reaches below that, each losing 2^-13 / sqrt(3) of the largest in the mean: 3 * 2^-13 of it
    // together, and four times as much in the worst of a million elements. Losses of many 128 terms add up as
    // their sums do, by their squares. (Seen, by our kernels and cuBLASLt alike: 8 * 2^-13.) A result in bf16
    // loses more in the end.
    return bf16_.Compare(what, rounded, weight ? 1e-5 : 1e-3, 12 * 0x1p-13);
  }

  // The same product of bf16 by cuBLAS, for one group.
  void RunCublasBf16() {
    const GroupedProblem& p = problem;
    if (cublas_ == nullptr && cublasCreate(&cublas_) != CUBLAS_STATUS_SUCCESS) std::printf("no cuBLAS\n");
    const bool forward = p.kind == GroupedProductKind::kForward,
               weight = p.kind == GroupedProductKind::kBackwardWeight;
    const float one = 1, beta = weight ? 1 : 0;
    const int rows = static_cast<int>(p.rows), in = static_cast<int>(p.in), out = static_cast<int>(p.out);
    const cublasStatus_t status = cublasGemmEx(
        cublas_, forward ? CUBLAS_OP_T : CUBLAS_OP_N, weight ? CUBLAS_OP_T : CUBLAS_OP_N, forward ? out : in,
        weight ? out : rows,
        forward  ? in
        : weight ? rows
                 : out,
        &one, weight ? p.x : p.w, CUDA_R_16BF, static_cast<int>(weight ? p.x_stride : p.w_stride),
        forward ? p.x : p.y, CUDA_R_16BF, static_cast<int>(forward ? p.x_stride : p.y_stride), &beta,
        product.c, weight ? CUDA_R_32F : CUDA_R_16BF, static_cast<int>(product.c_stride), CUBLAS_COMPUTE_32F,
        CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS) std::printf("cublasGemmEx: status %d\n", status);
  }

 private:
  Operands bf16_;
  std::vector<int64_t> offsets_;
  std::unique_ptr<Buffer<uint8_t>> memory_;
  cublasHandle_t cublas_ = nullptr;

 public:
  GroupedProblem problem;
  Fp8Source a;
  Fp8Source b;
  Fp8Product product;
};

// The product of one group by cuBLASLt, as dense_products.cc asks for it.
class CublasFp8 {
 public:
  explicit CublasFp8(const Fp8Operands& operands) : p_(operands.product), workspace_(64 << 20) {
    bool made = cublasLtCreate(&handle_) == CUBLAS_STATUS_SUCCESS;
    made =
        made && cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
      made = made && cublasLtMatmulDescSetAttribute(product_, attribute, &value, sizeof value) ==
                         CUBLAS_STATUS_SUCCESS;
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
        p_.b.blocks ? CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p_.b.scales);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p_.a.scales);
    const auto layout = [&](cublasLtMatrixLayout_t* to, cudaDataType type, int64_t rows, int64_t cols,
                            int64_t stride) {
      made = made && cublasLtMatrixLayoutCreate(to, type, rows, cols, stride) == CUBLAS_STATUS_SUCCESS;
    };
    layout(&a_, CUDA_R_8F_E4M3, p_.b.terms, p_.b.lines, p_.b.terms);
    layout(&b_, CUDA_R_8F_E4M3, p_.a.terms, p_.a.lines, p_.a.terms);
    layout(&c_, p_.c_bf16 ? CUDA_R_16BF : CUDA_R_32F, p_.n, p_.m, p_.c_stride);
    cublasLtMatmulPreference_t preference = nullptr;
    made = made && cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS;
    const size_t bytes = workspace_.count;
    made = made && cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                        &bytes, sizeof bytes) == CUBLAS_STATUS_SUCCESS;
    if (!made) {
      std::printf("cuBLASLt: the product cannot be described\n");
      return;
    }
    cublasLtMatmulHeuristicResult_t best = {};
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, product_, a_, b_, c_, c_, preference, 1, &best, &found);
    possible_ = status == CUBLAS_STATUS_SUCCESS && found == 1;
    if (!possible_) std::printf("cuBLASLt: no algorithm, status %d\n", status);
    algorithm_ = best.algo;
  }
  ~CublasFp8() { cublasLtDestroy(handle_); }

  bool Run() {
    if (!possible_) return false;
    const float one = 1, beta = p_.accumulate ? 1 : 0;
    const cublasStatus_t status =
        cublasLtMatmul(handle_, product_, &one, p_.b.values, a_, p_.a.values, b_, &beta, p_.c, c_, p_.c, c_,
                       &algorithm_, workspace_.data, workspace_.count, nullptr);
    if (status != CUBLAS_STATUS_SUCCESS) std::printf("cublasLtMatmul: status %d\n", status);
    return possible_ = status == CUBLAS_STATUS_SUCCESS;
  }

 private:
  Fp8Product p_;
  Buffer<uint8_t> workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_ = {};
  bool possible_ = false;
};

}  // namespace moebius::cuda
