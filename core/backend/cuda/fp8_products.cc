#include "core/backend/cuda/fp8_products.h"

#include "core/backend/cuda/errors.h"
#include "core/backend/cuda/plain_product.h"
#include "core/base/check.h"

namespace moebius::cuda {

namespace {

// Dense weight gradients of fewer elements than this are our own kernel's, which fills the card with parts of
// their last tiles; the others are cuBLASLt's.
constexpr int64_t kOwnWeights = 5'000'000;

// Both operands of a product, as they are stored.
struct Sources {
  Fp8Source a;
  Fp8Source b;
};

// Tiles lie along the terms of the sum: along the columns of what is stored with its terms in rows.
Sources SourcesOf(const DenseProduct& p) {
  const bool weight = !p.a.transposed, bf16 = p.act == DType::kBF16;
  const auto source = [&](const DenseMatrix& x, int64_t rows, int64_t cols, Fp8Tiles tiles) {
    return Fp8Source{
        .x = x.data, .bf16 = bf16, .stride = x.stride, .rows = rows, .cols = cols, .tiles = tiles};
  };
  Sources s{.a = weight ? source(p.a, p.m, p.k, Fp8Tiles::kAlongRow)
                        : source(p.a, p.k, p.m, Fp8Tiles::kAlongColumn),
            .b = p.b.transposed ? source(p.b, p.n, p.k, Fp8Tiles::kAlongRow)
                                : source(p.b, p.k, p.n, Fp8Tiles::kAlongColumn)};
  if (weight) {
    s.b.tiles = Fp8Tiles::kBlocks;
    s.b.transposed = !p.b.transposed;
  }
  return s;
}

Sources SourcesOf(const GroupedProblem& p) {
  const bool forward = p.kind == GroupedProductKind::kForward,
             weight = p.kind == GroupedProductKind::kBackwardWeight;
  const auto rows_of = [&](const void* x, int64_t stride, int64_t cols) {
    return Fp8Source{.x = x,
                     .bf16 = p.bf16,
                     .stride = stride,
                     .rows = p.rows,
                     .cols = cols,
                     .tiles = weight ? Fp8Tiles::kAlongColumn : Fp8Tiles::kAlongRow,
                     .groups = p.groups,
                     .offsets = p.offsets};
  };
  const Fp8Source x = rows_of(p.x, p.x_stride, p.in), y = rows_of(p.y, p.y_stride, p.out);
  if (weight) return {.a = y, .b = x};
  return {.a = forward ? x : y,
          .b = {.x = p.w,
                .bf16 = p.bf16,
                .stride = p.w_stride,
                .rows = p.groups * p.out,
                .cols = p.in,
                .tiles = Fp8Tiles::kBlocks,
                .transposed = !forward,
                .groups = p.groups}};
}

struct Operands {
  Fp8Matrix a;
  Fp8Matrix b;
  void* more;  // the memory beyond them
};

Operands Quantized(cudaStream_t stream, const Sources& s, int64_t more_bytes,
                   const Fp8Products::Scratch& scratch) {
  Operands o{.a = MatrixOf(s.a), .b = MatrixOf(s.b), .more = nullptr};
  uint8_t* memory = static_cast<uint8_t*>(scratch(o.a.Bytes() + o.b.Bytes() + more_bytes));
  o.a.Place(memory);
  o.b.Place(memory + o.a.Bytes());
  o.more = memory + o.a.Bytes() + o.b.Bytes();
  Quantize(stream, s.a, o.a);
  Quantize(stream, s.b, o.b);
  Launched("Quantize");
  return o;
}

// The same with rounded operands in fp32.
void Emulate(cudaStream_t stream, const Sources& s, PlainProduct p, const Fp8Products::Scratch& scratch) {
  float* a = static_cast<float*>(scratch((s.a.rows * s.a.cols + s.b.rows * s.b.cols) * 4));
  float* b = a + s.a.rows * s.a.cols;
  RoundToFp8(stream, s.a, a);
  RoundToFp8(stream, s.b, b);
  p.a = a;
  p.a_stride = s.a.cols;
  p.b = b;
  p.b_stride = s.b.cols;
  if (p.ragged == Ragged::kRows) p.b_group = s.b.rows / s.b.groups * s.b.cols;
  p.bf16 = false;
  RunPlain(stream, p);
  Launched("RoundToFp8");
}

}  // namespace

void Fp8Products::MatMul(cudaStream_t stream, const DenseProduct& p, DenseProducts& dense,
                         const Scratch& scratch) const {
  CHECK_EQ(p.batch, 1);
  const Sources s = SourcesOf(p);
  Fp8Product product{.a = MatrixOf(s.a),
                     .b = MatrixOf(s.b),
                     .c = const_cast<void*>(p.c.data),
                     .c_stride = p.c.stride,
                     .c_bf16 = p.c_type == DType::kBF16,
                     .accumulate = p.accumulate,
                     .bias = p.bias,
                     .m = p.m,
                     .n = p.n,
                     .rows = p.a.transposed ? p.k : p.m};
  if (!CanQuantize(s.a) || !CanQuantize(s.b) || !wgmma_.Takes(product)) {
    Emulate(stream, s,
            {.c = const_cast<void*>(p.c.data),
             .c_stride = p.c.stride,
             .a_transposed = p.a.transposed,
             .b_transposed = p.b.transposed,
             .c_bf16 = p.c_type == DType::kBF16,
             .accumulate = p.accumulate,
             .bias = p.bias,
             .m = p.m,
             .n = p.n,
             .k = p.k},
            scratch);
    return;
  }
  const bool ours = !product.b.blocks && p.m * p.n < kOwnWeights;
  const Operands o = Quantized(stream, s, ours ? wgmma_.PartBytes(product) : 0, scratch);
  DenseProduct rounded = p;
  rounded.act = DType::kF8E4M3;
  rounded.a = {.data = o.a.values, .stride = o.a.terms};
  rounded.b = {.data = o.b.values, .stride = o.b.terms, .transposed = true};
  rounded.k = o.a.terms;
  rounded.a_scales = o.a.scales;
  rounded.b_scales = o.b.scales;
  rounded.b_in_blocks = o.b.blocks;
  // The scales of tiles lie as cuBLASLt wants them only when 4 divides the lines.
  if (!ours && p.m % 4 == 0 && p.n % 4 == 0 && dense.Run(stream, rounded)) return;
  product.a = o.a;
  product.b = o.b;
  if (ours) product.parts = o.more;
  CUDA_OK(wgmma_.Run(stream, product));
}

void Fp8Products::GroupedMatMul(cudaStream_t stream, const GroupedProblem& p, const Scratch& scratch) const {
  if (p.rows == 0 || p.groups == 0 || p.out == 0 || p.in == 0) return;
  const bool forward = p.kind == GroupedProductKind::kForward,
             weight = p.kind == GroupedProductKind::kBackwardWeight;
  const Sources s = SourcesOf(p);
  Fp8Product product{.a = MatrixOf(s.a),
                     .b = MatrixOf(s.b),
                     .c = weight    ? p.w
                          : forward ? p.y
                                    : p.x,
                     .c_stride = weight    ? p.w_stride
                                 : forward ? p.y_stride
                                           : p.x_stride,
                     .c_bf16 = !weight && p.bf16,
                     .accumulate = weight,
                     .m = weight ? p.out : p.rows,
                     .n = forward ? p.out : p.in,
                     .groups = p.groups,
                     .offsets = p.offsets};
  if (!CanQuantize(s.a) || !CanQuantize(s.b) || !wgmma_.Takes(product)) {
    Emulate(stream, s, PlainOf(p), scratch);
    return;
  }
  const Operands o = Quantized(stream, s, 0, scratch);
  product.a = o.a;
  product.b = o.b;
  CUDA_OK(wgmma_.Run(stream, product));
}

}  // namespace moebius::cuda
