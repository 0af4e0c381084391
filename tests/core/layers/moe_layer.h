// The MoE MLP as a layer of its own: all phases in order, one rank.
#pragma once

#include "core/layers/moe_mlp.h"

namespace moebius {

class MoeLayer final : public Layer {
 public:
  explicit MoeLayer(MoeMlp* moe) : moe_(moe) {}
  void Forward(const Pass& pass, TensorView x, TensorView y) const override {
    ArenaScope scope(pass.saved.transient());
    moe_->Route(pass, x);
    moe_->PostDispatch(pass);
    moe_->SharedExpert(pass, y);
    moe_->Experts(pass);
    moe_->PostCombine(pass);
    moe_->WaitCombine(pass, moe_->has_shared() ? y : TensorView(), y);
  }
  void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const override {
    ArenaScope scope(pass.saved.transient());
    moe_->PostCombineBackward(pass, dy);
    moe_->SharedExpertBackward(pass, dy, dx);
    moe_->ExpertsBackward(pass);
    moe_->PostDispatchBackward(pass);
    moe_->WaitDispatchBackward(pass, moe_->has_shared() ? dx : TensorView(), dx);
  }
  void BackwardWeight(const Pass& pass) const override { moe_->BackwardWeight(pass); }
  void SetInput(const Pass& pass, TensorView x) const override { moe_->SetInput(pass, x); }

 private:
  MoeMlp* moe_;
};

}  // namespace moebius
