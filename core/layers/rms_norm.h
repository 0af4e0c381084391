// RMSNorm: y = x / sqrt(mean(x²) + epsilon) * gain, over the last dimension, in fp32.
// With `add`, the residual connection is fused in: s = x + add is normalised and kept.
#pragma once

#include "core/layers/layer.h"
#include "core/layers/parameter.h"

namespace moebius {

class RmsNormLayer final : public Layer {
 public:
  RmsNormLayer(SlotCounter& slots, Parameter* gain, float epsilon);

  void Forward(const Pass& pass, TensorView x, TensorView y) const override;
  // sum = x + add, y = norm(sum); sum stays valid until the backward.
  void ForwardAdd(const Pass& pass, TensorView x, TensorView add, TensorView sum, TensorView y) const;
  void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const override;
  // dx = residual + gradient.
  void BackwardInputAdd(const Pass& pass, TensorView dy, TensorView residual, TensorView dx) const;
  void BackwardWeight(const Pass& pass) const override;
  void SetInput(const Pass& pass, TensorView x) const override { pass.saved[x_] = x; }

  const Parameter& gain() const { return *gain_; }
  float epsilon() const { return epsilon_; }

  // y again from what the forward kept.
  void Recompute(const Pass& pass, TensorView y) const;

 private:
  Parameter* gain_;
  float epsilon_;
  int x_;
  int rstd_;
  int dgain_;
};

}  // namespace moebius
