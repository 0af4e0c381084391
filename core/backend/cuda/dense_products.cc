#include "core/backend/cuda/dense_products.h"

#include <algorithm>

#include "core/backend/cuda/errors.h"
#include "core/backend/cuda/memory.h"
#include "core/base/check.h"

namespace moebius::cuda {

namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;
constexpr size_t kMaxPlans = 4096;  // tokens of a microbatch change, so new shapes never end

cudaDataType_t TypeOf(DType dtype) {
  if (dtype == DType::kF8E4M3) return CUDA_R_8F_E4M3;
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << dtype;
  return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}

// The largest power of two, up to 256, that divides the address.
uint32_t Alignment(const void* pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  return static_cast<uint32_t>(std::min<uintptr_t>(address & -address, 256) + (address == 0 ? 256 : 0));
}

// The column-major view of a row-major matrix that is stored as `rows` x `cols`.
cublasLtMatrixLayout_t Layout(const DenseMatrix& x, DType dtype, int64_t rows, int64_t cols, int64_t batch) {
  cublasLtMatrixLayout_t layout = nullptr;
  const int64_t stride = rows == 1 ? std::max(x.stride, cols) : x.stride;
  CUDA_OK(cublasLtMatrixLayoutCreate(&layout, TypeOf(dtype), cols, rows, stride));
  if (batch > 1) {
    const int32_t count = static_cast<int32_t>(batch);
    CUDA_OK(
        cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    CUDA_OK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                             &x.batch_stride, sizeof x.batch_stride));
  }
  return layout;
}

template <typename T>
void Set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  CUDA_OK(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value));
}

template <typename T>
void Set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const T& value) {
  CUDA_OK(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
}

}  // namespace

DenseProducts::DenseProducts() {
  CUDA_OK(cublasLtCreate(&handle_));
  workspace_ = Claim(GpuMemory::kDevice, kWorkspaceBytes, "cuBLASLt's workspace");
}

DenseProducts::~DenseProducts() {
  Clear();
  cudaFree(workspace_);
  cublasLtDestroy(handle_);
}

void DenseProducts::Clear() {
  for (auto& [key, plan] : plans_) {
    cublasLtMatmulDescDestroy(plan.product);
    for (const cublasLtMatrixLayout_t layout : {plan.a, plan.b, plan.c}) cublasLtMatrixLayoutDestroy(layout);
  }
  plans_.clear();
}

DenseProducts::Key DenseProducts::KeyOf(const DenseProduct& p) {
  const int64_t flags = static_cast<int64_t>(p.act) | static_cast<int64_t>(p.c_type) << 8 |
                        int64_t{p.a.transposed} << 16 | int64_t{p.b.transposed} << 17 |
                        int64_t{p.accumulate} << 18 | int64_t{p.bias != nullptr} << 19 |
                        int64_t{p.b_in_blocks} << 20;
  const auto batch_stride = [&](const DenseMatrix& x) { return p.batch > 1 ? x.batch_stride : 0; };
  return {p.m,
          p.n,
          p.k,
          p.batch,
          p.a.stride,
          p.b.stride,
          p.c.stride,
          batch_stride(p.a),
          batch_stride(p.b),
          batch_stride(p.c),
          Alignment(p.a.data),
          Alignment(p.b.data),
          Alignment(p.c.data),
          Alignment(p.bias),
          flags,
          0};
}

DenseProducts::Plan DenseProducts::MakePlan(const DenseProduct& p) const {
  Plan plan;
#if CUBLAS_VERSION < 120900  // the first with scales of tiles and blocks
  if (p.act == DType::kF8E4M3) return plan;
#endif
  const auto layout = [&](const DenseMatrix& x, DType dtype, int64_t rows, int64_t cols) {
    return x.transposed ? Layout(x, dtype, cols, rows, p.batch) : Layout(x, dtype, rows, cols, p.batch);
  };
  plan.a = layout(p.b, p.act, p.k, p.n);
  plan.b = layout(p.a, p.act, p.m, p.k);
  plan.c = layout(p.c, p.c_type, p.m, p.n);
  CUDA_OK(cublasLtMatmulDescCreate(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  Set(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  Set(plan.product, CUBLASLT_MATMUL_DESC_TRANSB, p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias != nullptr) {  // along cuBLASLt's rows, which are our columns
    Set(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    Set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
    Set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  }
#if CUBLAS_VERSION >= 120900
  if (p.act == DType::kF8E4M3) {
    Set(plan.product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
        p.b_in_blocks ? CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F
                      : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
    Set(plan.product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
    SetScales(plan, p);
  }
#endif

  cublasLtMatmulPreference_t preference = nullptr;
  CUDA_OK(cublasLtMatmulPreferenceCreate(&preference));
  Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // Parts of a sum over k are added in fp32, in a fixed order, never rounded to bf16 in between.
  Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, Alignment(p.b.data));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, Alignment(p.a.data));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, Alignment(p.c.data));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, Alignment(p.c.data));
  cublasLtMatmulHeuristicResult_t best = {};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.product, plan.a, plan.b, plan.c,
                                                               plan.c, preference, 1, &best, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  plan.possible = status == CUBLAS_STATUS_SUCCESS && found == 1 && best.state == CUBLAS_STATUS_SUCCESS;
  if (plan.possible) plan.algorithm = best.algo;
  return plan;
}

void DenseProducts::SetScales(const Plan& plan, const DenseProduct& p) {
  Set(plan.product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.b_scales);
  Set(plan.product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.a_scales);
}

bool DenseProducts::Run(cudaStream_t stream, const DenseProduct& p) {
  CHECK(p.m > 0 && p.n > 0 && p.k > 0 && p.batch > 0);
  if (plans_.size() >= kMaxPlans) Clear();
  const auto [found, added] = plans_.try_emplace(KeyOf(p));
  Plan& plan = found->second;
  if (added) plan = MakePlan(p);
  if (!plan.possible) return false;
  if (p.bias != nullptr) Set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  if (p.act == DType::kF8E4M3) SetScales(plan, p);
  const float one = 1, beta = p.accumulate ? 1 : 0;
  void* c = const_cast<void*>(p.c.data);
  const cublasStatus_t status =
      cublasLtMatmul(handle_, plan.product, &one, p.b.data, plan.a, p.a.data, plan.b, &beta, c, plan.c, c,
                     plan.c, &plan.algorithm, workspace_, kWorkspaceBytes, stream);
  // Of FP8 some kinds are refused here, before anything is launched.
  plan.possible = p.act != DType::kF8E4M3 || status != CUBLAS_STATUS_NOT_SUPPORTED;
  if (plan.possible) Ok(status, "cublasLtMatmul");
  return plan.possible;
}

}  // namespace moebius::cuda
