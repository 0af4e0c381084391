// Token embedding: out[t] = table[ids[t]]. Its input has no gradient, so only the weight phase exists.
#pragma once

#include "core/layers/layer.h"
#include "core/layers/parameter.h"

namespace moebius {

class TokenEmbedding {
 public:
  TokenEmbedding(SlotCounter& slots, Parameter* table)
      : table_(table), ids_(slots.Take()), dy_(slots.Take()) {}

  // ids [T] i32 -> y [T, hidden] act. ids and dy stay valid until BackwardWeight.
  void Forward(const Pass& pass, TensorView ids, TensorView y) const;
  void SetGradient(const Pass& pass, TensorView dy) const { pass.saved[dy_] = dy; }
  void BackwardWeight(const Pass& pass) const;

 private:
  Parameter* table_;
  int ids_;
  int dy_;
};

}  // namespace moebius
