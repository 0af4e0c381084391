#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/errors.h"
#include "core/backend/cuda/fp8_products.h"
#include "core/backend/cuda/grouped_products.h"
#include "core/backend/cuda/plain_product.h"

namespace moebius {

namespace cuda {

GroupedProducts::GroupedProducts(const cudaDeviceProp& properties) : wgmma_(properties) {}

void GroupedProducts::Run(cudaStream_t stream, const GroupedProblem& problem) const {
  if (problem.rows == 0 || problem.groups == 0 || problem.out == 0 || problem.in == 0) return;
  if (wgmma_.Takes(problem)) {
    CUDA_OK(wgmma_.Run(stream, problem));
  } else {
    RunPlain(stream, PlainOf(problem));
  }
}

}  // namespace cuda

void CudaBackend::GroupedMatMul(Stream& stream, const GroupedMatMulArgs& args) {
  using cuda::GroupedProductKind;
  const GroupedProductKind kind = args.kind == GroupedKind::kForward ? GroupedProductKind::kForward
                                  : args.kind == GroupedKind::kBackwardInput
                                      ? GroupedProductKind::kBackwardInput
                                      : GroupedProductKind::kBackwardWeight;
  const cuda::GroupedProblem problem{.kind = kind,
                                     .bf16 = args.x.dtype == DType::kBF16,
                                     .x = args.x.data,
                                     .w = args.w.data,
                                     .y = args.y.data,
                                     .x_stride = args.x.stride,
                                     .y_stride = args.y.stride,
                                     .w_stride = args.w.stride,
                                     .rows = args.x.rows(),
                                     .groups = args.w.shape[0],
                                     .out = args.w.shape[1],
                                     .in = args.w.shape[2],
                                     .offsets = args.offsets.as<int64_t>()};
  if (args.rounding == Rounding::kFp8) {
    void *const x = args.rounded_x.data, *const y = args.rounded_y.data;
    // Its first operand is x in the forward, y in both halves of the backward.
    const bool forward = kind == GroupedProductKind::kForward;
    fp8_->GroupedMatMul(cuda::Raw(stream), problem, {.a = forward ? x : y, .b = forward ? nullptr : x},
                        [this](int64_t bytes) { return Scratch(bytes); });
  } else {
    grouped_->Run(cuda::Raw(stream), problem);
  }
  cuda::Launched("GroupedMatMul");
}

}  // namespace moebius
