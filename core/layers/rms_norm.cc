#include "core/layers/rms_norm.h"

#include "core/backend/ops.h"

namespace moebius {

RmsNormLayer::RmsNormLayer(SlotCounter& slots, Parameter* gain, float epsilon)
    : gain_(gain), epsilon_(epsilon), x_(slots.Take()), rstd_(slots.Take()), dgain_(slots.Take()) {}

void RmsNormLayer::Forward(const Pass& pass, TensorView x, TensorView y) const {
  pass.saved[x_] = x;
  const TensorView rstd = pass.Keep(rstd_, DType::kF32, {x.rows()});
  RmsNorm(pass.context, {.x = x, .gain = gain_->weight(), .y = y, .rstd = rstd, .epsilon = epsilon_});
}

void RmsNormLayer::ForwardAdd(const Pass& pass, TensorView x, TensorView add, TensorView sum,
                              TensorView y) const {
  pass.saved[x_] = sum;
  const TensorView rstd = pass.Keep(rstd_, DType::kF32, {x.rows()});
  RmsNorm(
      pass.context,
      {.x = x, .add = add, .sum = sum, .gain = gain_->weight(), .y = y, .rstd = rstd, .epsilon = epsilon_});
}

void RmsNormLayer::Recompute(const Pass& pass, TensorView y) const {
  RmsNorm(
      pass.context,
      {.x = pass.saved[x_], .gain = gain_->weight(), .y = y, .rstd = pass.saved[rstd_], .epsilon = epsilon_});
}

void RmsNormLayer::BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const {
  BackwardInputAdd(pass, dy, TensorView(), dx);
}

void RmsNormLayer::BackwardInputAdd(const Pass& pass, TensorView dy, TensorView residual,
                                    TensorView dx) const {
  // The sum over rows needs dy, which would have to be kept: it is taken here and added in BackwardWeight.
  const TensorView dgain = pass.KeepGradient(dgain_, DType::kF32, gain_->shape());
  RmsNormBackward(pass.context, {.x = pass.saved[x_],
                                 .rstd = pass.saved[rstd_],
                                 .gain = gain_->weight(),
                                 .dy = dy,
                                 .residual = residual,
                                 .dx = dx,
                                 .dgain = dgain});
}

void RmsNormLayer::BackwardWeight(const Pass& pass) const {
  Accumulate(pass.context, {.x = pass.saved[dgain_], .y = gain_->grad()});
}

}  // namespace moebius
