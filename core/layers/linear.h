// Linear: y = x · Wᵀ (+ b), W [out, in]. The bias is read and trained in fp32.
#pragma once

#include "core/layers/layer.h"
#include "core/layers/parameter.h"

namespace moebius {

class Linear final : public Layer {
 public:
  Linear(SlotCounter& slots, Parameter* weight, Parameter* bias = nullptr);

  void Forward(const Pass& pass, TensorView x, TensorView y) const override;
  void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const override;
  void BackwardWeight(const Pass& pass) const override;

  void SetInput(const Pass& pass, TensorView x) const override { pass.saved[x_] = x; }

  TensorView Input(const Pass& pass) const { return pass.saved[x_]; }
  int64_t in() const { return weight_->shape()[1]; }
  int64_t out() const { return weight_->shape()[0]; }
  const Parameter& weight() const { return *weight_; }

 private:
  Parameter* weight_;
  Parameter* bias_;
  int x_;
  int dy_;
};

}  // namespace moebius
