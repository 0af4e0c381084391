#include "core/layers/linear.h"

#include "core/backend/ops.h"

namespace moebius {

Linear::Linear(SlotCounter& slots, Parameter* weight, Parameter* bias)
    : weight_(weight),
      bias_(bias),
      x_(slots.Take()),
      x_columns_(slots.Take()),
      dy_(slots.Take()),
      dy_columns_(slots.Take()) {}

void Linear::Forward(const Pass& pass, TensorView x, TensorView y) const { ForwardRounded(pass, x, {}, y); }

void Linear::ForwardRounded(const Pass& pass, TensorView x, TensorView rounded_x, TensorView y) const {
  SetInput(pass, x);
  MatMul(pass.context, {.a = x,
                        .b = weight_->weight(),
                        .c = y,
                        .transpose_b = Transpose::kYes,
                        .bias = bias_ != nullptr ? bias_->weight() : TensorView(),
                        .rounding = pass.rounding,
                        .rounded_a = rounded_x});
}

void Linear::BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const {
  ArenaScope scope(pass.context.scratch);
  const RoundedCopies rounded = pass.NewRoundedGradient(dy);
  if (rounded.rows) Round(pass.context, {.x = dy, .to = rounded});
  BackwardInputRounded(pass, dy, rounded, dx);
}

void Linear::BackwardInputRounded(const Pass& pass, TensorView dy, const RoundedCopies& rounded_dy,
                                  TensorView dx) const {
  pass.saved[dy_] = dy;
  pass.saved[dy_columns_] = rounded_dy.columns;
  MatMul(pass.context,
         {.a = dy, .b = weight_->weight(), .c = dx, .rounding = pass.rounding, .rounded_a = rounded_dy.rows});
}

void Linear::BackwardWeight(const Pass& pass) const {
  const TensorView dy = pass.saved[dy_];
  MatMul(pass.context, {.a = dy,
                        .b = pass.saved[x_],
                        .c = weight_->grad(),
                        .transpose_a = Transpose::kYes,
                        .accumulate = true,
                        .rounding = pass.rounding,
                        .rounded_a = pass.saved[dy_columns_],
                        .rounded_b = pass.saved[x_columns_]});
  if (bias_ == nullptr) return;
  // db = the column sums of dy: a product with a row of ones.
  ArenaScope scope(pass.context.scratch);
  const TensorView ones = pass.context.scratch.New(dy.dtype, {1, dy.rows()});
  Fill(pass.context, ones, 1.0f);
  MatMul(pass.context, {.a = ones, .b = dy, .c = bias_->grad().Reshape({1, out()}), .accumulate = true});
}

}  // namespace moebius
