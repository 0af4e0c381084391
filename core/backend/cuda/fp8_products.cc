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

struct Placed {
  Fp8Matrix a;
  Fp8Matrix b;
  void* more;  // the memory beyond them
};

// Both in FP8: where they have been rounded to, or rounded now.
Placed Quantized(cudaStream_t stream, const Sources& s, const Fp8Products::Operands& rounded,
                 int64_t more_bytes, const Fp8Products::Scratch& scratch) {
  Placed o{.a = MatrixOf(s.a), .b = MatrixOf(s.b), .more = nullptr};
  const int64_t a_bytes = rounded.a == nullptr ? o.a.Bytes() : 0,
                b_bytes = rounded.b == nullptr ? o.b.Bytes() : 0;
  uint8_t* memory = static_cast<uint8_t*>(scratch(a_bytes + b_bytes + more_bytes));
  o.a.Place(rounded.a == nullptr ? memory : rounded.a);
  o.b.Place(rounded.b == nullptr ? memory + a_bytes : rounded.b);
  o.more = memory + a_bytes + b_bytes;
  if (rounded.a == nullptr) Quantize(stream, s.a, o.a);
  if (rounded.b == nullptr) Quantize(stream, s.b, o.b);
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

int64_t Fp8Products::RoundedBytes(const TensorView& x, RoundedBy by, int64_t groups) const {
  Fp8Source s{
      .x = x.data, .bf16 = x.dtype == DType::kBF16, .stride = x.stride, .rows = x.rows(), .cols = x.cols()};
  if (!wgmma_.there() || !CanQuantize(s)) return 0;
  if (by == RoundedBy::kRows) return MatrixOf(s).Bytes();
  const int64_t some = 0;  // with offsets a group more or less may end in a tile of its own
  s.tiles = Fp8Tiles::kAlongColumn;
  s.groups = groups;
  s.offsets = &some;
  return MatrixOf(s).Bytes();
}

void Fp8Products::Round(cudaStream_t stream, const RoundArgs& args) const {
  Fp8Source s{.x = args.x.data,
              .bf16 = args.x.dtype == DType::kBF16,
              .stride = args.x.stride,
              .rows = args.x.rows(),
              .cols = args.x.cols()};
  Fp8Matrix rows = MatrixOf(s);
  s.tiles = Fp8Tiles::kAlongColumn;
  if (args.offsets) {
    s.groups = args.offsets.elements() - 1;
    s.offsets = args.offsets.as<int64_t>();
  }
  Fp8Matrix columns = MatrixOf(s);
  if (args.to.rows) rows.Place(args.to.rows.data);
  if (args.to.columns) columns.Place(args.to.columns.data);
  if (args.to.rows && args.to.columns) {
    QuantizeBoth(stream, s, rows, columns);
  } else if (args.to.columns) {
    Quantize(stream, s, columns);
  } else if (args.to.rows) {
    s.tiles = Fp8Tiles::kAlongRow;
    Quantize(stream, s, rows);
  }
  Launched("Round");
}

void Fp8Products::MatMul(cudaStream_t stream, const DenseProduct& p, const Operands& already,
                         DenseProducts& dense, const Scratch& scratch) const {
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
    CHECK(s.a.x != nullptr && s.b.x != nullptr) << "rounded operands of a product without FP8 kernels";
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
  const Placed o = Quantized(stream, s, already, ours ? wgmma_.PartBytes(product) : 0, scratch);
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

void Fp8Products::GroupedMatMul(cudaStream_t stream, const GroupedProblem& p, const Operands& already,
                                const Scratch& scratch) const {
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
    CHECK(s.a.x != nullptr && s.b.x != nullptr) << "rounded operands of products without FP8 kernels";
    Emulate(stream, s, PlainOf(p), scratch);
    return;
  }
  const Placed o = Quantized(stream, s, already, 0, scratch);
  product.a = o.a;
  product.b = o.b;
  CUDA_OK(wgmma_.Run(stream, product));
}

}  // namespace moebius::cuda
