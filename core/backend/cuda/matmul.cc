// Dense products: cuBLASLt where it has an algorithm, a plain kernel elsewhere.
#include <algorithm>

#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/dense_products.h"
#include "core/backend/cuda/errors.h"
#include "core/backend/cuda/fp8_products.h"
#include "core/backend/cuda/plain_product.h"

namespace moebius {

namespace {

using cuda::DenseMatrix;
using cuda::DenseProduct;

// Of the fp32 sums that wait for their bias: a part of the second-level cache.
constexpr int64_t kUnfinishedBytes = int64_t{24} << 20;

DenseMatrix Matrix(const TensorView& x, Transpose transpose = Transpose::kNo) {
  // With one row the stride says nothing, and may be anything.
  return {.data = x.data,
          .stride = x.rows() <= 1 ? std::max(x.stride, x.cols()) : x.stride,
          .transposed = transpose == Transpose::kYes};
}

const void* At(const DenseMatrix& x, DType dtype, int64_t element) {
  return static_cast<const char*>(x.data) + element * SizeOf(dtype);
}

void Plain(cudaStream_t stream, const DenseProduct& p) {
  for (int64_t i = 0; i < p.batch; ++i) {
    cuda::RunPlain(stream, {.a = At(p.a, p.act, i * p.a.batch_stride),
                            .b = At(p.b, p.act, i * p.b.batch_stride),
                            .c = const_cast<void*>(At(p.c, p.c_type, i * p.c.batch_stride)),
                            .a_stride = p.a.stride,
                            .b_stride = p.b.stride,
                            .c_stride = p.c.stride,
                            .a_transposed = p.a.transposed,
                            .b_transposed = p.b.transposed,
                            .bf16 = p.act == DType::kBF16,
                            .c_bf16 = p.c_type == DType::kBF16,
                            .accumulate = p.accumulate,
                            .bias = p.bias,
                            .m = p.m,
                            .n = p.n,
                            .k = p.k});
  }
  cuda::Launched("MatMul");
}

}  // namespace

int64_t CudaBackend::RoundedBytes(const TensorView& x, RoundedBy by, int64_t groups) const {
  return fp8_->RoundedBytes(x, by, groups);
}

void CudaBackend::Round(Stream& stream, const RoundArgs& args) { fp8_->Round(cuda::Raw(stream), args); }

void CudaBackend::MatMul(Stream& stream, const MatMulArgs& args) {
  const cudaStream_t raw = cuda::Raw(stream);
  DenseProduct p{.a = Matrix(args.a, args.transpose_a),
                 .b = Matrix(args.b, args.transpose_b),
                 .c = Matrix(args.c),
                 .m = args.c.rows(),
                 .n = args.c.cols(),
                 .k = args.transpose_a == Transpose::kYes ? args.a.rows() : args.a.cols(),
                 .act = args.a.dtype,
                 .c_type = args.c.dtype,
                 .accumulate = args.accumulate,
                 .bias = args.bias ? args.bias.as<float>() : nullptr};
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (p.accumulate && p.bias == nullptr) return;
    cuda::FinishRows(raw, {.source = p.accumulate ? args.c.as<float>() : nullptr,
                           .source_stride = p.c.stride,
                           .bias = p.bias,
                           .c = args.c.data,
                           .c_stride = p.c.stride,
                           .c_type = p.c_type,
                           .rows = p.m,
                           .n = p.n});
    return;
  }
  if (args.rounding == Rounding::kFp8) {
    return fp8_->MatMul(raw, p, {.a = args.rounded_a.data, .b = args.rounded_b.data}, *dense_,
                        [this](int64_t bytes) { return Scratch(bytes); });
  }
  if (dense_->Run(raw, p)) return;
  if (p.bias == nullptr) return Plain(raw, p);

  // The product into fp32 rows (c's own when it is fp32, else some at a time beside it), then the bias: c is
  // rounded once, as on the CPU.
  const bool in_place = p.c_type == DType::kF32;
  const int64_t most = in_place ? p.m : std::max<int64_t>(kUnfinishedBytes / 4 / p.n / 128 * 128, 128);
  float* sums = static_cast<float*>(in_place ? args.c.data : Scratch(std::min(most, p.m) * p.n * 4));
  for (int64_t row = 0; row < p.m; row += most) {
    DenseProduct part = p;
    part.m = std::min(most, p.m - row);
    part.a.data = At(p.a, p.act, p.a.transposed ? row : row * p.a.stride);
    part.c.data = At(p.c, p.c_type, row * p.c.stride);
    DenseProduct unbiased = part;
    unbiased.bias = nullptr;
    unbiased.c = {.data = sums, .stride = in_place ? p.c.stride : p.n};
    unbiased.c_type = DType::kF32;
    if (!dense_->Run(raw, unbiased)) {
      Plain(raw, part);
      continue;
    }
    cuda::FinishRows(raw, {.source = sums,
                           .source_stride = unbiased.c.stride,
                           .bias = p.bias,
                           .c = const_cast<void*>(part.c.data),
                           .c_stride = p.c.stride,
                           .c_type = p.c_type,
                           .rows = part.m,
                           .n = p.n});
  }
}

// Heads are a batch: row t of head h is row t * heads + h of the view.
void CudaBackend::HeadMatMul(Stream& stream, const HeadMatMulArgs& args) {
  const cudaStream_t raw = cuda::Raw(stream);
  const int64_t tokens = args.a.shape[0], heads = args.w.shape[0], n = args.w.shape[1], k = args.w.shape[2];
  if (tokens == 0 || heads == 0 || n == 0) return;
  const auto by_head = [&](const TensorView& x) -> DenseMatrix {
    const int64_t stride = Matrix(x).stride;
    return {.data = x.data, .stride = stride * heads, .batch_stride = stride};
  };
  const DenseMatrix c = by_head(args.c);
  if (k == 0) {
    cuda::FinishRows(raw, {.c = args.c.data,
                           .c_stride = c.batch_stride,
                           .c_type = args.c.dtype,
                           .rows = tokens * heads,
                           .n = n});
    return;
  }
  const DenseProduct p{.a = by_head(args.a),
                       .b = {.data = args.w.data, .stride = k, .batch_stride = n * k, .transposed = true},
                       .c = c,
                       .m = tokens,
                       .n = n,
                       .k = k,
                       .batch = heads,
                       .act = args.a.dtype,
                       .c_type = args.c.dtype};
  if (!dense_->Run(raw, p)) Plain(raw, p);
}

}  // namespace moebius
