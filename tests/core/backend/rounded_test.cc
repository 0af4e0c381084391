// Activations that are rounded to FP8 once for all their products (Backend::Round), or by the kernel that
// makes them: products have the bits of those that round their operands themselves. Of backends that keep
// anything rounded, so of the GPU's tests only.
#include <functional>
#include <string>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

class RoundedTest : public testing::Test {
 protected:
  // Groups that are empty, of one row, below, at and beyond a tile; rows beyond the last belong to none.
  static inline const std::vector<int64_t> kOffsets = {0, 0, 1, 6, 6, 134, 425, 425, 681};
  static constexpr int64_t kGroups = 8, kRows = 696, kIn = 264, kOut = 384;

  RoundedTest() : offsets_(*backend_, DType::kI64, {kGroups + 1}) {
    std::copy(kOffsets.begin(), kOffsets.end(), offsets_.view().as<int64_t>());
  }

  void SetUp() override {
    if (backend_->InstructionSet() != "sm_90")
      GTEST_SKIP() << "no FP8 kernels on " << backend_->InstructionSet();
  }

  Tensor Random(Shape shape, const std::string& name) {
    return RandomTensor(*backend_, DType::kBF16, shape, name);
  }
  Tensor NewRounded(const TensorView& x, RoundedBy by, int64_t groups) {
    const int64_t bytes = backend_->RoundedBytes(x, by, groups);
    CHECK_GT(bytes, 0) << "nothing is kept rounded here";
    return DirtyTensor(*backend_, DType::kU8, {bytes});
  }
  static TensorView WithoutMemory(TensorView x) {
    x.data = nullptr;
    return x;
  }
  // What `product` makes of result.
  Tensor Made(DType dtype, Shape shape, const std::function<void(TensorView)>& product) {
    Tensor result(*backend_, dtype, shape);
    backend_->Zero(*stream_, result);
    product(result);
    return result;
  }
  // A grouped product with an operand of its own memory and with the rounded one.
  void ExpectSame(GroupedMatMulArgs args, bool rounds_x, const TensorView& rounded, const std::string& what) {
    const bool weight = args.kind == GroupedKind::kBackwardWeight;
    TensorView& result = weight ? args.w : args.kind == GroupedKind::kForward ? args.y : args.x;
    const auto run = [&](TensorView to) {
      result.data = to.data;
      backend_->GroupedMatMul(*stream_, args);
    };
    const DType dtype = weight ? DType::kF32 : DType::kBF16;
    const Tensor want = Made(dtype, result.shape, run);
    TensorView& operand = rounds_x ? args.x : args.y;
    operand = WithoutMemory(operand);
    (rounds_x ? args.rounded_x : args.rounded_y) = rounded;
    const Tensor got = Made(dtype, result.shape, run);
    EXPECT_TRUE(SameBits(want, got)) << what;
    bool some = false;
    for (const double v : Values(want)) some = some || v != 0;
    EXPECT_TRUE(some) << what;
  }

  const std::unique_ptr<Backend> backend_ = NewTestBackend();
  const std::unique_ptr<Stream> stream_ = backend_->NewStream(StreamKind::kCompute);
  Tensor offsets_;
};

TEST_F(RoundedTest, ProductsHaveTheBitsOfThoseThatRoundThemselves) {
  const Tensor x = Random({300, kIn}, "x"), w = Random({kOut, kIn}, "w"), dy = Random({300, kOut}, "dy");
  const Tensor x_rows = NewRounded(x, RoundedBy::kRows, 1), x_columns = NewRounded(x, RoundedBy::kColumns, 1);
  const Tensor dy_rows = NewRounded(dy, RoundedBy::kRows, 1),
               dy_columns = NewRounded(dy, RoundedBy::kColumns, 1);
  // By one way after the other, and by both at once.
  backend_->Round(*stream_, {.x = x, .to = {.rows = x_rows}});
  backend_->Round(*stream_, {.x = x, .to = {.columns = x_columns}});
  backend_->Round(*stream_, {.x = dy, .to = {.rows = dy_rows, .columns = dy_columns}});
  const auto same = [&](MatMulArgs args, DType dtype, Shape shape, TensorView a, TensorView b,
                        const char* what) {
    args.rounding = Rounding::kFp8;
    const auto run = [&](TensorView to) {
      args.c = to;
      backend_->MatMul(*stream_, args);
    };
    const Tensor want = Made(dtype, shape, run);
    args.rounded_a = a, args.rounded_b = b;
    args.a = WithoutMemory(args.a);
    if (b) args.b = WithoutMemory(args.b);
    EXPECT_TRUE(SameBits(want, Made(dtype, shape, run))) << what;
  };
  same({.a = x, .b = w, .c = {}, .transpose_b = Transpose::kYes}, DType::kBF16, {300, kOut}, x_rows, {}, "y");
  same({.a = dy, .b = w, .c = {}}, DType::kBF16, {300, kIn}, dy_rows, {}, "dx");
  same({.a = dy, .b = x, .c = {}, .transpose_a = Transpose::kYes, .accumulate = true}, DType::kF32,
       {kOut, kIn}, dy_columns, x_columns, "dw");
}

TEST_F(RoundedTest, GroupedProductsHaveTheBitsOfThoseThatRoundThemselves) {
  const Tensor x = Random({kRows, kIn}, "x"), w = Random({kGroups, kOut, kIn}, "w"),
               dy = Random({kRows, kOut}, "dy");
  const Tensor x_rows = NewRounded(x, RoundedBy::kRows, kGroups),
               dy_rows = NewRounded(dy, RoundedBy::kRows, kGroups);
  const Tensor x_columns = NewRounded(x, RoundedBy::kColumns, kGroups);
  const Tensor dy_columns = NewRounded(dy, RoundedBy::kColumns, kGroups);
  backend_->Round(*stream_, {.x = x, .offsets = offsets_, .to = {.rows = x_rows, .columns = x_columns}});
  backend_->Round(*stream_, {.x = dy, .offsets = offsets_, .to = {.rows = dy_rows, .columns = dy_columns}});
  const TensorView y(nullptr, DType::kBF16, {kRows, kOut}), dx(nullptr, DType::kBF16, {kRows, kIn});
  const TensorView dw(nullptr, DType::kF32, {kGroups, kOut, kIn});
  const GroupedMatMulArgs forward{
      .kind = GroupedKind::kForward, .x = x, .w = w, .y = y, .offsets = offsets_, .rounding = Rounding::kFp8};
  ExpectSame(forward, true, x_rows, "y");
  GroupedMatMulArgs input = forward;
  input.kind = GroupedKind::kBackwardInput, input.x = dx, input.y = dy;
  ExpectSame(input, false, dy_rows, "dx");
  GroupedMatMulArgs weight = forward;
  weight.kind = GroupedKind::kBackwardWeight, weight.w = dw, weight.y = dy;
  ExpectSame(weight, true, x_columns, "dw, x rounded");
  ExpectSame(weight, false, dy_columns, "dw, dy rounded");
}

TEST_F(RoundedTest, SwiGluRoundsWhatItWouldHaveMade) {
  for (const int64_t width : {128, 384, 896}) {
    SCOPED_TRACE(width);
    const Tensor gate_up = Random({kRows, 2 * width}, "gate_up"), dh = Random({kRows, width}, "dh");
    const Tensor weights = RandomTensor(*backend_, DType::kF32, {kRows}, "weights");
    const TensorView h_shape(nullptr, DType::kBF16, {kRows, width}),
        d_shape(nullptr, DType::kBF16, {kRows, 2 * width});
    const Tensor h(*backend_, DType::kBF16, h_shape.shape), d(*backend_, DType::kBF16, d_shape.shape);
    const Tensor d_weights = DirtyTensor(*backend_, DType::kF32, {kRows});
    const Tensor d_weights_too = DirtyTensor(*backend_, DType::kF32, {kRows});
    const Tensor h_rows = NewRounded(h_shape, RoundedBy::kRows, kGroups);
    const Tensor h_columns = NewRounded(h_shape, RoundedBy::kColumns, kGroups);
    const Tensor d_rows = NewRounded(d_shape, RoundedBy::kRows, kGroups);
    const Tensor d_columns = NewRounded(d_shape, RoundedBy::kColumns, kGroups);
    backend_->SwiGlu(*stream_, {.gate_up = gate_up, .row_weights = weights, .h = h});
    backend_->SwiGlu(
        *stream_, {.gate_up = gate_up, .row_weights = weights, .h = h_shape, .rounded_h = {.rows = h_rows}});
    backend_->SwiGluBackward(*stream_, {.gate_up = gate_up,
                                        .row_weights = weights,
                                        .dh = dh,
                                        .d_gate_up = d,
                                        .d_row_weights = d_weights,
                                        .h = h});
    backend_->SwiGluBackward(*stream_, {.gate_up = gate_up,
                                        .row_weights = weights,
                                        .dh = dh,
                                        .d_gate_up = d_shape,
                                        .d_row_weights = d_weights_too,
                                        .offsets = offsets_,
                                        .rounded_d_gate_up = {.rows = d_rows, .columns = d_columns},
                                        .rounded_h = {.columns = h_columns}});
    const int64_t of_groups = kOffsets.back();
    ExpectNear(Values(d_weights_too.view().Rows(0, of_groups)), Values(d_weights.view().Rows(0, of_groups)),
               1e-6, "d_row_weights");

    const Tensor up = Random({kGroups, 2 * width, kIn}, "up"), down = Random({kGroups, kOut, width}, "down");
    const Tensor dy = Random({kRows, kOut}, "dy"), x = Random({kRows, kIn}, "x");
    const auto view = [](Shape shape, DType dtype = DType::kBF16) {
      return TensorView(nullptr, dtype, shape);
    };
    GroupedMatMulArgs args{.kind = GroupedKind::kForward,
                           .x = h,
                           .w = down,
                           .y = view({kRows, kOut}),
                           .offsets = offsets_,
                           .rounding = Rounding::kFp8};
    ExpectSame(args, true, h_rows, "y");
    args.kind = GroupedKind::kBackwardWeight, args.y = dy, args.w = view({kGroups, kOut, width}, DType::kF32);
    ExpectSame(args, true, h_columns, "gradient of down");
    args.kind = GroupedKind::kBackwardInput, args.x = view({kRows, kIn}), args.w = up, args.y = d;
    ExpectSame(args, false, d_rows, "dx");
    args.kind = GroupedKind::kBackwardWeight, args.x = x,
    args.w = view({kGroups, 2 * width, kIn}, DType::kF32);
    ExpectSame(args, false, d_columns, "gradient of gate and up");
  }
}

// Without groups and weights: squares of a row are shared by several blocks.
TEST_F(RoundedTest, SwiGluOfAllRowsRoundsWhatItWouldHaveMade) {
  const int64_t rows = 300, width = 1152;
  const Tensor gate_up = Random({rows, 2 * width}, "gate_up"), dh = Random({rows, width}, "dh");
  const TensorView h_shape(nullptr, DType::kBF16, {rows, width}),
      d_shape(nullptr, DType::kBF16, {rows, 2 * width});
  const Tensor h(*backend_, DType::kBF16, h_shape.shape), d(*backend_, DType::kBF16, d_shape.shape);
  const auto both = [&](const TensorView& x) {
    return std::pair(NewRounded(x, RoundedBy::kRows, 1), NewRounded(x, RoundedBy::kColumns, 1));
  };
  const auto [h_rows, h_columns] = both(h_shape);
  const auto [d_rows, d_columns] = both(d_shape);
  const auto [want_h_rows, want_h_columns] = both(h);
  const auto [want_d_rows, want_d_columns] = both(d);
  backend_->SwiGlu(*stream_, {.gate_up = gate_up, .h = h_shape, .rounded_h = {.rows = h_rows}});
  backend_->SwiGluBackward(*stream_, {.gate_up = gate_up,
                                      .dh = dh,
                                      .d_gate_up = d_shape,
                                      .rounded_d_gate_up = {.rows = d_rows, .columns = d_columns},
                                      .rounded_h = {.columns = h_columns}});
  backend_->SwiGluBackward(*stream_, {.gate_up = gate_up, .dh = dh, .d_gate_up = d, .h = h});
  backend_->Round(*stream_, {.x = h, .to = {.rows = want_h_rows, .columns = want_h_columns}});
  backend_->Round(*stream_, {.x = d, .to = {.rows = want_d_rows, .columns = want_d_columns}});
  EXPECT_TRUE(SameBits(h_rows, want_h_rows));
  EXPECT_TRUE(SameBits(h_columns, want_h_columns));
  EXPECT_TRUE(SameBits(d_rows, want_d_rows));
  EXPECT_TRUE(SameBits(d_columns, want_d_columns));
}

}  // namespace
}  // namespace moebius
