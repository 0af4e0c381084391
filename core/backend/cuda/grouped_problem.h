// A grouped product as its kernels see it: GroupedMatMulArgs (kernel_args.h) without views, so that the
// kernels' files need nothing but CUDA.
#pragma once

#include <cstdint>

namespace moebius::cuda {

// Group g owns rows [offsets[g], offsets[g + 1]).
//   kForward:        y [rows, out]  =  x [rows, in] · w[g] [out, in]ᵀ
//   kBackwardInput:  x              =  y · w[g]
//   kBackwardWeight: w[g] f32      +=  yᵀ · x
enum class GroupedProductKind { kForward, kBackwardInput, kBackwardWeight };

struct GroupedProblem {
  GroupedProductKind kind = GroupedProductKind::kForward;
  bool bf16 = false;  // x, y and, but for kBackwardWeight, w; fp32 otherwise
  void* x = nullptr;
  void* w = nullptr;  // [groups * out, in]
  void* y = nullptr;
  int64_t x_stride = 0;
  int64_t y_stride = 0;
  int64_t w_stride = 0;
  int64_t rows = 0;  // of x and y; the groups may own fewer
  int64_t groups = 0;
  int64_t out = 0;
  int64_t in = 0;
  const int64_t* offsets = nullptr;  // [groups + 1], device memory
};

}  // namespace moebius::cuda
