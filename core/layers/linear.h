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

  void SetInput(const Pass& pass, TensorView x) const override { SetRoundedInput(pass, x, {}); }

  // The same with operands that have been rounded, which x and dy then only give a shape: by the rows of x,
  // by both of dy, and for BackwardWeight by the columns of x.
  void ForwardRounded(const Pass& pass, TensorView x, TensorView rounded_x, TensorView y) const;
  void BackwardInputRounded(const Pass& pass, TensorView dy, const RoundedCopies& rounded_dy,
                            TensorView dx) const;
  void SetRoundedInput(const Pass& pass, TensorView x, TensorView rounded_x) const {
    pass.saved[x_] = x;
    pass.saved[x_columns_] = rounded_x;
  }

  TensorView Input(const Pass& pass) const { return pass.saved[x_]; }
  int64_t in() const { return weight_->shape()[1]; }
  int64_t out() const { return weight_->shape()[0]; }
  const Parameter& weight() const { return *weight_; }

 private:
  Parameter* weight_;
  Parameter* bias_;
  int x_, x_columns_;
  int dy_, dy_columns_;
};

}  // namespace moebius
