#include "core/backend/ops.h"

#include <algorithm>

#include "core/backend/ops_checks.h"

namespace moebius {

using ops::Bytes;
using ops::CheckFlat;
using ops::CheckMatrix;
using ops::CheckShape;
using ops::IsAct;
using ops::Run;

void Zero(const Context& context, TensorView x) {
  CheckMatrix(x, "x", x.dtype, x.rows(), x.cols());
  Run(context, "Zero", 0, Bytes(x), [&] { context.backend.Zero(context.stream, x); });
}

void Fill(const Context& context, TensorView x, float value) {
  CHECK(IsAct(x.dtype)) << "Fill: " << x;
  CheckMatrix(x, "x", x.dtype, x.rows(), x.cols());
  Run(context, "Fill", 0, Bytes(x), [&] { context.backend.Fill(context.stream, x, value); });
}

void Cast(const Context& context, TensorView from, TensorView to) {
  CHECK(IsAct(from.dtype) && IsAct(to.dtype)) << from << " to " << to;
  CheckMatrix(from, "from", from.dtype, from.rows(), from.cols());
  CheckMatrix(to, "to", to.dtype, from.rows(), from.cols());
  Run(context, "Cast", 0, Bytes(from, to), [&] { context.backend.Cast(context.stream, from, to); });
}

void Accumulate(const Context& context, const AccumulateArgs& args) {
  CHECK(IsAct(args.x.dtype) && IsAct(args.y.dtype)) << args.x << " into " << args.y;
  CheckMatrix(args.x, "x", args.x.dtype, args.x.rows(), args.x.cols());
  CheckMatrix(args.y, "y", args.y.dtype, args.x.rows(), args.x.cols());
  Run(context, "Accumulate", 2.0 * args.x.elements(), Bytes(args.x, args.y, args.y),
      [&] { context.backend.Accumulate(context.stream, args); });
}

namespace {

// What Backend::RoundedBytes says x takes, and no other: x itself then needs no memory.
void CheckRounded(const Context& context, const TensorView& rounded, std::string_view name,
                  const TensorView& x, RoundedBy by, int64_t groups) {
  CHECK_GT(x.shape.rank(), 0) << name << " of nothing";
  CheckFlat(rounded, name, DType::kU8, context.backend.RoundedBytes(x, by, groups));
}

// An operand of a product, or its rounded form.
void CheckOperand(const Context& context, const TensorView& x, const TensorView& rounded,
                  std::string_view name, DType act, int64_t rows, int64_t cols, RoundedBy by,
                  int64_t groups) {
  if (!rounded) return CheckMatrix(x, name, act, rows, cols);
  CHECK(x.dtype == act && x.rows() == rows && x.cols() == cols)
      << name << " is " << x << ", want " << act << " " << rows << " rows of " << cols;
  CheckRounded(context, rounded, name, x, by, groups);
}

double BytesOf(const TensorView& x, const TensorView& rounded) { return rounded ? Bytes(rounded) : Bytes(x); }

}  // namespace

void Round(const Context& context, const RoundArgs& args) {
  const int64_t groups = args.offsets ? args.offsets.elements() - 1 : 1;
  CHECK(IsAct(args.x.dtype)) << "x is " << args.x;
  CheckMatrix(args.x, "x", args.x.dtype, args.x.rows(), args.x.cols());
  if (args.offsets) CheckFlat(args.offsets, "offsets", DType::kI64, groups + 1);
  if (args.to.rows) CheckRounded(context, args.to.rows, "rows", args.x, RoundedBy::kRows, groups);
  if (args.to.columns) CheckRounded(context, args.to.columns, "columns", args.x, RoundedBy::kColumns, groups);
  Run(context, "Round FP8", 4.0 * args.x.elements(), Bytes(args.x, args.to.rows, args.to.columns),
      [&] { context.backend.Round(context.stream, args); });
}

void MatMul(const Context& context, const MatMulArgs& args) {
  const bool ta = args.transpose_a == Transpose::kYes, tb = args.transpose_b == Transpose::kYes;
  const DType act = args.a.dtype;
  CHECK(IsAct(act)) << "a is " << args.a;
  const int64_t m = ta ? args.a.cols() : args.a.rows(), k = ta ? args.a.rows() : args.a.cols();
  const int64_t n = tb ? args.b.rows() : args.b.cols();
  const RoundedBy by = ta ? RoundedBy::kColumns : RoundedBy::kRows;
  CHECK(!(args.rounded_a || args.rounded_b) || args.rounding == Rounding::kFp8) << "rounded for nothing";
  CHECK(!args.rounded_b || ta) << "b is a weight";
  CheckOperand(context, args.a, args.rounded_a, "a", act, ta ? k : m, ta ? m : k, by, 1);
  CheckOperand(context, args.b, args.rounded_b, "b", act, tb ? n : k, tb ? k : n, by, 1);
  CHECK(args.c.dtype == DType::kF32 || (args.c.dtype == act && !args.accumulate))
      << "c is " << args.c << (args.accumulate ? " and accumulates" : "") << ", act is " << act;
  CheckMatrix(args.c, "c", args.c.dtype, m, n);
  if (args.bias) CheckFlat(args.bias, "bias", DType::kF32, n);
  constexpr std::string_view kNames[2][4] = {
      {"MatMul NN", "MatMul NT", "MatMul TN", "MatMul TT"},
      {"MatMul NN FP8", "MatMul NT FP8", "MatMul TN FP8", "MatMul TT FP8"}};
  const std::string_view name = kNames[args.rounding == Rounding::kFp8][2 * ta + tb];
  Run(context, name, 2.0 * m * n * k,
      BytesOf(args.a, args.rounded_a) + BytesOf(args.b, args.rounded_b) + Bytes(args.c, args.bias) +
          (args.accumulate ? Bytes(args.c) : 0.0),
      [&] { context.backend.MatMul(context.stream, args); });
}

void GroupedMatMul(const Context& context, const GroupedMatMulArgs& args) {
  CHECK_EQ(args.w.shape.rank(), 3) << "w is " << args.w;
  const int64_t groups = args.w.shape[0], out = args.w.shape[1], in = args.w.shape[2];
  const bool weights = args.kind == GroupedKind::kBackwardWeight;
  const DType act = args.x.dtype;
  CHECK(IsAct(act)) << "x is " << args.x;
  const int64_t rows = args.x.rows();
  const RoundedBy by = weights ? RoundedBy::kColumns : RoundedBy::kRows;
  CHECK(!args.rounded_x || args.kind != GroupedKind::kBackwardInput) << "x is the result";
  CHECK(!args.rounded_y || args.kind != GroupedKind::kForward) << "y is the result";
  CHECK(!(args.rounded_x || args.rounded_y) || args.rounding == Rounding::kFp8) << "rounded for nothing";
  CheckOperand(context, args.x, args.rounded_x, "x", act, rows, in, by, groups);
  CheckOperand(context, args.y, args.rounded_y, "y", act, rows, out, by, groups);
  CheckMatrix(args.w, "w", weights ? DType::kF32 : act, groups * out, in);
  CheckFlat(args.offsets, "offsets", DType::kI64, groups + 1);
  constexpr std::string_view kNames[2][3] = {
      {"GroupedMatMul forward", "GroupedMatMul input", "GroupedMatMul weight"},
      {"Grouped forward FP8", "Grouped input FP8", "Grouped weight FP8"}};
  const std::string_view name = kNames[args.rounding == Rounding::kFp8][static_cast<int>(args.kind)];
  Run(context, name, 2.0 * rows * in * out,
      BytesOf(args.x, args.rounded_x) + BytesOf(args.y, args.rounded_y) + Bytes(args.w) +
          (weights ? Bytes(args.w) : 0.0),
      [&] { context.backend.GroupedMatMul(context.stream, args); });
}

namespace {

void CheckInt8(const Context& context, const Int8Weight& w) {
  CHECK(w.shape.rank() == 3 && w.shape[2] > 0) << w.shape;
  const int64_t bytes = context.backend.Int8Bytes(w.shape);
  CHECK_GT(bytes, 0) << context.backend.Name() << " has no products in 8 bits";
  CheckFlat(w.packed, "packed", DType::kU8, bytes);
}

}  // namespace

void PackInt8(const Context& context, const PackInt8Args& args) {
  CHECK(IsAct(args.w.dtype)) << "w is " << args.w;
  CheckShape(args.w, "w", args.w.dtype, args.to.shape);
  CheckInt8(context, args.to);
  Run(context, "PackInt8", 2.0 * args.w.elements(), Bytes(args.w, args.to.packed),
      [&] { context.backend.PackInt8(context.stream, args); });
}

void Int8MatMul(const Context& context, const Int8MatMulArgs& args) {
  CheckInt8(context, args.w);
  const int64_t groups = args.w.shape[0], out = args.w.shape[1], in = args.w.shape[2];
  const int64_t rows = args.x.rows();
  const DType act = args.x.dtype;
  CHECK(IsAct(act)) << "x is " << args.x;
  CheckMatrix(args.x, "x", act, rows, in);
  CHECK(args.y.dtype == DType::kF32 || args.y.dtype == act) << "y is " << args.y << ", act is " << act;
  CheckMatrix(args.y, "y", args.y.dtype, rows, out);
  CHECK(args.offsets || groups == 1) << groups << " groups without offsets";
  if (args.offsets) CheckFlat(args.offsets, "offsets", DType::kI64, groups + 1);
  CHECK(!args.bias || groups == 1) << "a bias of " << groups << " groups";
  if (args.bias) CheckFlat(args.bias, "bias", DType::kF32, out);
  Run(context, args.offsets ? "Grouped forward INT8" : "MatMul NT INT8", 2.0 * rows * in * out,
      Bytes(args.x, args.w.packed, args.y, args.bias),
      [&] { context.backend.Int8MatMul(context.stream, args); });
}

void HeadMatMul(const Context& context, const HeadMatMulArgs& args) {
  CHECK(args.a.shape.rank() == 3 && args.w.shape.rank() == 3) << "a is " << args.a << ", w is " << args.w;
  const DType act = args.a.dtype;
  CHECK(IsAct(act)) << "a is " << args.a;
  const int64_t tokens = args.a.shape[0], heads = args.w.shape[0], n = args.w.shape[1], k = args.w.shape[2];
  CheckShape(args.a, "a", act, {tokens, heads, k});
  CheckFlat(args.w, "w", act, heads * n * k);
  CheckShape(args.c, "c", act, {tokens, heads, n});
  Run(context, "HeadMatMul", 2.0 * tokens * heads * n * k, Bytes(args.a, args.w, args.c),
      [&] { context.backend.HeadMatMul(context.stream, args); });
}

void Embedding(const Context& context, const EmbeddingArgs& args) {
  const int64_t tokens = args.ids.elements(), hidden = args.table.cols();
  CHECK(IsAct(args.table.dtype)) << "table is " << args.table;
  CheckMatrix(args.table, "table", args.table.dtype, args.table.rows(), hidden);
  CheckFlat(args.ids, "ids", DType::kI32, tokens);
  CheckMatrix(args.out, "out", args.table.dtype, tokens, hidden);
  Run(context, "Embedding", 0, Bytes(args.ids, args.out, args.out),
      [&] { context.backend.Embedding(context.stream, args); });
}

void EmbeddingBackward(const Context& context, const EmbeddingBackwardArgs& args) {
  const int64_t tokens = args.ids.elements(), hidden = args.dtable.cols();
  CHECK(IsAct(args.dy.dtype)) << "dy is " << args.dy;
  CheckFlat(args.ids, "ids", DType::kI32, tokens);
  CheckMatrix(args.dy, "dy", args.dy.dtype, tokens, hidden);
  CheckMatrix(args.dtable, "dtable", DType::kF32, args.dtable.rows(), hidden);
  Run(context, "EmbeddingBackward", 1.0 * tokens * hidden, Bytes(args.ids, args.dy) + 8.0 * tokens * hidden,
      [&] { context.backend.EmbeddingBackward(context.stream, args); });
}

void RmsNorm(const Context& context, const RmsNormArgs& args) {
  const int64_t rows = args.x.rows(), n = args.x.cols();
  const DType act = args.x.dtype;
  CHECK(IsAct(act)) << "x is " << args.x;
  CheckMatrix(args.x, "x", act, rows, n);
  if (args.add) CheckMatrix(args.add, "add", act, rows, n);
  if (args.sum) CheckMatrix(args.sum, "sum", act, rows, n);
  CheckFlat(args.gain, "gain", DType::kF32, n);
  CheckMatrix(args.y, "y", act, rows, n);
  CheckFlat(args.rstd, "rstd", DType::kF32, rows);
  Run(context, "RmsNorm", 4.0 * rows * n, Bytes(args.x, args.add, args.sum, args.y, args.rstd),
      [&] { context.backend.RmsNorm(context.stream, args); });
}

void RmsNormBackward(const Context& context, const RmsNormBackwardArgs& args) {
  const int64_t rows = args.x.rows(), n = args.x.cols();
  const DType act = args.x.dtype;
  CHECK(IsAct(act)) << "x is " << args.x;
  CheckMatrix(args.x, "x", act, rows, n);
  CheckFlat(args.rstd, "rstd", DType::kF32, rows);
  CheckFlat(args.gain, "gain", DType::kF32, n);
  CheckMatrix(args.dy, "dy", act, rows, n);
  if (args.residual) CheckMatrix(args.residual, "residual", act, rows, n);
  CheckMatrix(args.dx, "dx", act, rows, n);
  CheckFlat(args.dgain, "dgain", DType::kF32, n);
  Run(context, "RmsNormBackward", 10.0 * rows * n, Bytes(args.x, args.dy, args.residual, args.dx, args.rstd),
      [&] { context.backend.RmsNormBackward(context.stream, args); });
}

void Rope(const Context& context, const RopeArgs& args) {
  CHECK_EQ(args.x.shape.rank(), 3) << "x is " << args.x;
  CHECK(IsAct(args.x.dtype)) << "x is " << args.x;
  const int64_t tokens = args.x.shape[0], d = args.x.shape[2];
  CHECK_EQ(d % 2, 0) << "rotation works on pairs: x is " << args.x;
  CheckMatrix(args.x, "x", args.x.dtype, args.x.rows(), d);
  CheckFlat(args.positions, "positions", DType::kI32, tokens);
  CheckMatrix(args.cos, "cos", DType::kF32, args.cos.rows(), d / 2);
  CheckMatrix(args.sin, "sin", DType::kF32, args.cos.rows(), d / 2);
  Run(context, "Rope", 3.0 * args.x.elements(), Bytes(args.x, args.x),
      [&] { context.backend.Rope(context.stream, args); });
}

void SwiGlu(const Context& context, const SwiGluArgs& args) {
  const int64_t rows = args.h.rows(), width = args.h.cols();
  const DType act = args.h.dtype;
  CHECK(IsAct(act)) << "h is " << args.h;
  CheckOperand(context, args.h, args.rounded_h.rows, "h", act, rows, width, RoundedBy::kRows, 1);
  CHECK(!args.rounded_h.rows || width % 128 == 0) << "h is " << args.h;
  CheckMatrix(args.gate_up, "gate_up", act, rows, 2 * width);
  if (args.row_weights) CheckFlat(args.row_weights, "row_weights", DType::kF32, rows);
  Run(context, "SwiGlu", 6.0 * rows * width,
      Bytes(args.gate_up, args.row_weights) + BytesOf(args.h, args.rounded_h.rows),
      [&] { context.backend.SwiGlu(context.stream, args); });
}

void SwiGluBackward(const Context& context, const SwiGluBackwardArgs& args) {
  const int64_t rows = args.dh.rows(), width = args.dh.cols();
  const DType act = args.dh.dtype;
  CHECK(IsAct(act)) << "dh is " << args.dh;
  CheckMatrix(args.dh, "dh", act, rows, width);
  CheckMatrix(args.gate_up, "gate_up", act, rows, 2 * width);
  const RoundedCopies& d = args.rounded_d_gate_up;
  const int64_t groups = args.offsets ? args.offsets.elements() - 1 : 1;
  CheckOperand(context, args.d_gate_up, d.rows, "d_gate_up", act, rows, 2 * width, RoundedBy::kRows, groups);
  if (d.rows || d.columns || args.rounded_h.columns) {
    CHECK(width % 128 == 0) << "dh is " << args.dh;
    CheckRounded(context, d.columns, "d_gate_up", args.d_gate_up, RoundedBy::kColumns, groups);
    CheckRounded(context, args.rounded_h.columns, "h", args.dh, RoundedBy::kColumns, groups);
    if (args.offsets) CheckFlat(args.offsets, "offsets", DType::kI64, groups + 1);
  }
  if (args.row_weights) CheckFlat(args.row_weights, "row_weights", DType::kF32, rows);
  if (args.d_row_weights) {
    CHECK(args.row_weights) << "d_row_weights without row_weights";
    CheckFlat(args.d_row_weights, "d_row_weights", DType::kF32, rows);
  }
  if (args.h) CheckMatrix(args.h, "h", act, rows, width);
  Run(context, "SwiGluBackward", 15.0 * rows * width,
      Bytes(args.gate_up, args.row_weights, args.dh, args.d_gate_up, args.d_row_weights, args.h, d.rows,
            d.columns, args.rounded_h.columns),
      [&] { context.backend.SwiGluBackward(context.stream, args); });
}

void AdamW(const Context& context, const AdamWArgs& args) {
  const int64_t n = args.master.elements();
  CheckFlat(args.master, "master", DType::kF32, n);
  CHECK(IsAct(args.m.dtype)) << "m is " << args.m;
  CHECK(IsAct(args.v.dtype)) << "v is " << args.v;
  CheckFlat(args.m, "m", args.m.dtype, n);
  CheckFlat(args.v, "v", args.v.dtype, n);
  CheckFlat(args.grad, "grad", DType::kF32, n);
  if (args.weight) CheckFlat(args.weight, "weight", DType::kBF16, n);
  if (args.ema) CheckFlat(args.ema, "ema", DType::kF32, n);
  CHECK_GE(args.step, 1) << "AdamW counts steps from 1";
  Run(context, "AdamW", 16.0 * n,
      2 * Bytes(args.master, args.m, args.v, args.grad, args.ema) + Bytes(args.weight),
      [&] { context.backend.AdamW(context.stream, args); });
}

void SumSquares(const Context& context, TensorView x, TensorView sum) {
  CheckFlat(x, "x", DType::kF32, x.elements());
  CheckFlat(sum, "sum", DType::kF64, 1);
  Run(context, "SumSquares", 2.0 * x.elements(), Bytes(x),
      [&] { context.backend.SumSquares(context.stream, x, sum); });
}

}  // namespace moebius
