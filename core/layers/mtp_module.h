// One multi-token-prediction module (DeepSeek-V3 §2.2; deepseek.md 1.5; contract "MTP"):
//   h' = W_eh [enorm(embedding of the next token) ; hnorm(previous hidden state)]
//   output = shared_head.norm(block(h')), what the shared head reads and the next module gets.
// Embedding first: the order of the released weights, opposite to the paper's text.
#pragma once

#include <memory>

#include "core/layers/block.h"
#include "core/layers/linear.h"
#include "core/layers/rms_norm.h"

namespace moebius {

struct MtpParameters {
  Parameter* embedding_norm;  // [hidden]
  Parameter* hidden_norm;
  Parameter* projection;  // [hidden, 2 hidden]
  Parameter* output_norm;
};

class MtpModule {
 public:
  MtpModule(SlotCounter& slots, const MtpParameters& parameters, float epsilon, std::unique_ptr<Block> block);

  // pass.layout holds the positions that have a target at this depth: T of them. hidden, embedding and output
  // are [T, hidden] act and stay valid until the weight phase.
  void Forward(const Pass& pass, TensorView hidden, TensorView embedding, TensorView output) const;
  void BackwardInput(const Pass& pass, TensorView d_output, TensorView d_hidden,
                     TensorView d_embedding) const;
  void BackwardWeight(const Pass& pass) const;

  const Block& block() const { return *block_; }
  const RmsNormLayer& embedding_norm() const { return embedding_norm_; }
  const RmsNormLayer& hidden_norm() const { return hidden_norm_; }
  const RmsNormLayer& output_norm() const { return output_norm_; }
  const Linear& projection() const { return projection_; }

 private:
  RmsNormLayer embedding_norm_, hidden_norm_, output_norm_;
  Linear projection_;
  std::unique_ptr<Block> block_;
};

}  // namespace moebius
