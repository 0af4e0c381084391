// Dense SwiGLU MLP: y = W_down · (silu(W_gate x) ⊙ W_up x). Gate and up are one matrix [2 I, hidden].
#pragma once

#include "core/layers/linear.h"

namespace moebius {

class SwiGluMlp final : public Layer {
 public:
  SwiGluMlp(SlotCounter& slots, Parameter* gate_up, Parameter* down);

  void Forward(const Pass& pass, TensorView x, TensorView y) const override;
  void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const override;
  void BackwardWeight(const Pass& pass) const override;
  void SetInput(const Pass& pass, TensorView x) const override { gate_up_.SetInput(pass, x); }

  const Linear& gate_up() const { return gate_up_; }
  const Linear& down() const { return down_; }

 private:
  Linear gate_up_;
  Linear down_;
  int gate_up_out_;
  int h_;
};

}  // namespace moebius
