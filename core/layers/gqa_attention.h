// Grouped-query attention (Llama, Qwen): q, k, v = W x (+ b); RMSNorm of each head's query and key where the
// model has it (Qwen3); rotary over the whole head; y = W_o softmax(q kᵀ * scale) v.
#pragma once

#include <optional>

#include "core/layers/linear.h"
#include "core/layers/rms_norm.h"
#include "core/layers/rotary.h"

namespace moebius {

struct GqaShape {
  int64_t hidden;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  float scale;
  float norm_epsilon;
};

struct GqaParameters {
  Parameter* q;  // [heads * head_dim, hidden]
  Parameter* k;  // [kv_heads * head_dim, hidden]
  Parameter* v;
  Parameter* o;  // [hidden, heads * head_dim]
  Parameter* q_bias = nullptr;
  Parameter* k_bias = nullptr;
  Parameter* v_bias = nullptr;
  Parameter* q_norm = nullptr;  // [head_dim]
  Parameter* k_norm = nullptr;
};

class GqaAttention final : public Layer {
 public:
  GqaAttention(SlotCounter& slots, const GqaShape& shape, const GqaParameters& parameters,
               const RotaryTable* rotary);

  void Forward(const Pass& pass, TensorView x, TensorView y) const override;
  void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const override;
  void BackwardWeight(const Pass& pass) const override;
  void SetInput(const Pass& pass, TensorView x) const override;

  const GqaShape& shape() const { return shape_; }
  const GqaParameters& parameters() const { return parameters_; }
  const RotaryTable& rotary() const { return *rotary_; }

 private:
  struct Operands {   // of attention, or their gradients
    TensorView q;     // [rows, heads * head_dim]
    TensorView k, v;  // [rows, kv_heads * head_dim]
    TensorView o;     // [rows, heads * head_dim]
  };

  Operands Kept(const Pass& pass) const;
  AttentionArgs Scores(const Pass& pass, const Operands& operands) const;
  void ScoresBackward(const Pass& pass, TensorView d_o, TensorView dq, TensorView dk, TensorView dv) const;

  GqaShape shape_;
  GqaParameters parameters_;
  const RotaryTable* rotary_;
  Linear q_, k_, v_, o_;
  std::optional<RmsNormLayer> q_norm_, k_norm_;
  int q_in_, k_in_, q_out_, k_out_, v_out_, o_in_, lse_;  // q_in, k_in: before their norms
};

}  // namespace moebius
