// A transformer block, pre-norm: h = x + attention(norm1(x)); y = h + mlp(norm2(h)), the MLP dense or MoE.
//
// Each phase is a short list of segments, cut where tokens travel and marked compute, post or wait, so that
// two microbatches are overlapped by interleaving two lists. Running a list in order is the phase.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "core/layers/layer.h"
#include "core/layers/moe_mlp.h"
#include "core/layers/rms_norm.h"
#include "core/layers/swiglu_mlp.h"

namespace moebius {

enum class SegmentKind { kCompute, kPost, kWait };

class Block final : public Layer {
 public:
  // in and out of a phase: x and y of the forward, dy and dx of the backward.
  struct Segment {
    SegmentKind kind;
    const char* name;
    void (Block::*run)(const Pass& pass, TensorView in, TensorView out) const;
  };

  // Exactly one of dense and moe is set.
  Block(SlotCounter& slots, Parameter* norm1, Parameter* norm2, float epsilon,
        std::unique_ptr<Layer> attention, std::unique_ptr<SwiGluMlp> dense, std::unique_ptr<MoeMlp> moe);

  std::span<const Segment> ForwardSegments() const;
  std::span<const Segment> BackwardInputSegments() const;
  // BackwardInput and BackwardWeight in one: the experts' weight gradients are computed while tokens travel.
  std::span<const Segment> BackwardSegments() const;

  void Forward(const Pass& pass, TensorView x, TensorView y) const override;
  void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const override;
  void BackwardWeight(const Pass& pass) const override;
  void SetInput(const Pass& pass, TensorView x) const override { norm1_.SetInput(pass, x); }

  // See MoeMlp.
  void Forget(const Pass& pass) const {
    if (moe_ != nullptr) moe_->Forget(pass);
  }

  const MoeMlp* moe() const { return moe_.get(); }
  const SwiGluMlp* dense() const { return dense_.get(); }
  const Layer& attention() const { return *attention_; }
  const RmsNormLayer& norm1() const { return norm1_; }
  const RmsNormLayer& norm2() const { return norm2_; }

 private:
  void AttentionForward(const Pass& pass, TensorView x, TensorView y) const;
  void DenseForward(const Pass& pass, TensorView x, TensorView y) const;
  void PostDispatch(const Pass& pass, TensorView x, TensorView y) const;
  void SharedForward(const Pass& pass, TensorView x, TensorView y) const;
  void ExpertsForward(const Pass& pass, TensorView x, TensorView y) const;
  void PostCombine(const Pass& pass, TensorView x, TensorView y) const;
  void WaitCombine(const Pass& pass, TensorView x, TensorView y) const;

  void PostCombineBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void SharedBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void ExpertsBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void PostDispatchBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void WaitDispatchBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void DenseBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void AttentionBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void ExpertWeights(const Pass& pass, TensorView dy, TensorView dx) const;
  void OtherWeights(const Pass& pass, TensorView dy, TensorView dx) const;

  Arena& NormMemory(const Pass& pass) const;

  RmsNormLayer norm1_, norm2_;
  std::unique_ptr<Layer> attention_;
  std::unique_ptr<SwiGluMlp> dense_;
  std::unique_ptr<MoeMlp> moe_;
  int n1_, n2_, h_, dn2_;
};

}  // namespace moebius
