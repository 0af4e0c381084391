// Output head with fused cross-entropy: logits = x · Wᵀ are made, turned into losses and gradients, and
// forgotten chunk by chunk of tokens, so all logits never exist. The exception among layers: dx and dW are
// computed together in one pass (W's phase is empty in every schedule).
#pragma once

#include "core/backend/context.h"
#include "core/layers/parameter.h"

namespace moebius {

class LossHead;

// A frozen model whose predictions the head's are drawn to: distillation (Hinton et al. 2015).
struct HeadTeacher {
  const LossHead* head = nullptr;  // its vocabulary begins with this head's; what it has beyond is left out
  TensorView x = {};               // [T, its hidden] act: HeadArgs::rows names the rows of both
  DivergenceKind kind = DivergenceKind::kForward;
  float inverse_temperature = 1;  // of both softmaxes
  float scale = 0;                // adds scale * weight * divergence to what the gradients are of
};

// N predictions, of T hidden rows.
struct HeadArgs {
  TensorView x;          // [T, hidden] act
  TensorView rows = {};  // [N] i32: the row that each prediction is made from; empty: N = T, row by row
  TensorView targets;    // [N] i32; negative: no loss
  TensorView losses;     // = [N] f32 cross-entropy in nats, at the inverse temperature
  // With dx, gradients of the sum of (scale * weight * loss - entropy_scale * entropy): dx = [T, hidden] act,
  // W's gradient += .
  float scale = 0;
  TensorView weights = {};  // [N] f32; empty: 1 each
  float inverse_temperature = 1;
  TensorView entropies = {};  // = [N] f32, where wanted
  float entropy_scale = 0;
  TensorView dx = {};
  HeadTeacher teacher = {};     // where its head is not null
  TensorView divergences = {};  // = [N] f32 (DivergenceArgs), with a teacher
  TensorView agreements = {};   // = [N] f32, with a teacher
};

class LossHead {
 public:
  explicit LossHead(Parameter* weight) : weight_(weight) {}  // [V, hidden]

  void Run(const Context& context, const HeadArgs& args) const;
  // logits [T, V] f32, for sampling; fewer columns are the first of them.
  void Logits(const Context& context, TensorView x, TensorView logits) const;
  Parameter* weight() const { return weight_; }
  int64_t vocab_size() const { return weight_->shape()[0]; }

 private:
  // Memory of a chunk.
  struct Room {
    TensorView logits;   // [chunk, V] f32
    TensorView teacher;  // [chunk, V] f32, with a teacher
    TensorView dlogits;  // [chunk, V] act, for gradients; logits itself where act is f32
    TensorView x;        // [chunk, hidden] act, and the teacher's, where rows are gathered
    TensorView teacher_x;
    Room Rows(int64_t n) const;
  };
  void RunChunk(const Context& context, const HeadArgs& args, const Room& room) const;

  Parameter* weight_;
};

}  // namespace moebius
