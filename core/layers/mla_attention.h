// Multi-head latent attention (DeepSeek-V2 §2.1; deepseek.md 1.4):
//   [c_q | c_kv | k_rope] = W_a x          c_q, c_kv normalised; k_rope rotated, one for all heads
//   q = W_qb c_q                           per head [nope | rope], the rope part rotated
//   [k | v] = W_kvb c_kv                   per head [nope | v]
//   y = W_o softmax(q · [k | k_rope]ᵀ * scale) v
// Without q_lora, q = W_q x directly and W_a gives [c_kv | k_rope] only.
#pragma once

#include <optional>

#include "core/layers/linear.h"
#include "core/layers/rms_norm.h"
#include "core/layers/rotary.h"

namespace moebius {

struct MlaShape {
  int64_t hidden;
  int64_t heads;
  int64_t q_lora_rank;  // 0: none
  int64_t kv_lora_rank;
  int64_t nope_dim;
  int64_t rope_dim;
  int64_t v_dim;
  float scale;  // of the scores

  int64_t qk_dim() const { return nope_dim + rope_dim; }
  int64_t a_dim() const { return q_lora_rank + kv_lora_rank + rope_dim; }
};

struct MlaParameters {
  Parameter* a;                 // [a_dim, hidden]: q_a_proj over kv_a_proj_with_mqa
  Parameter* q_norm = nullptr;  // [q_lora_rank], with q_lora
  Parameter* q;                 // [heads * qk_dim, q_lora_rank or hidden]
  Parameter* kv_norm;           // [kv_lora_rank]
  Parameter* kv;                // [heads * (nope_dim + v_dim), kv_lora_rank]
  Parameter* o;                 // [hidden, heads * v_dim]
};

// Of the norms inside MLA: fixed in every released model, whatever rms_norm_eps says.
inline constexpr float kLatentNormEpsilon = 1e-6f;

class MlaAttention final : public Layer {
 public:
  MlaAttention(SlotCounter& slots, const MlaShape& shape, const MlaParameters& parameters,
               const RotaryTable* rotary);

  void Forward(const Pass& pass, TensorView x, TensorView y) const override;
  void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const override;
  void BackwardWeight(const Pass& pass) const override;
  void SetInput(const Pass& pass, TensorView x) const override;

  const MlaShape& shape() const { return shape_; }
  const MlaParameters& parameters() const { return parameters_; }
  const RotaryTable& rotary() const { return *rotary_; }

 private:
  struct Operands {     // of attention, or their gradients
    TensorView q;       // [rows, heads * qk_dim]
    TensorView kv;      // [rows, heads * (nope_dim + v_dim)]
    TensorView k_rope;  // [rows, rope_dim]
    TensorView o;       // [rows, heads * v_dim]
  };

  // q and kv from what the forward kept of the latents.
  void UpProject(const Pass& pass, TensorView c_q, TensorView c_kv, TensorView q, TensorView kv) const;
  Operands Kept(const Pass& pass) const;
  AttentionArgs Scores(const Pass& pass, const Operands& operands) const;
  void ScoresForward(const Pass& pass) const;
  void ScoresBackward(const Pass& pass, const Operands& gradients) const;

  MlaShape shape_;
  MlaParameters parameters_;
  const RotaryTable* rotary_;
  Linear a_;
  std::optional<RmsNormLayer> q_norm_;
  Linear q_;
  RmsNormLayer kv_norm_;
  Linear kv_;
  Linear o_;
  int a_out_, c_q_, c_kv_, q_out_, kv_out_, o_in_, lse_;
};

}  // namespace moebius
