// The MLP of a block for generation: forward only, nothing kept. Experts are reached through the layer's
// token exchange, so that expert parallelism serves generation too.
#pragma once

#include "core/generate/decode_weights.h"
#include "core/layers/block.h"

namespace moebius {

// h [T, hidden] + mlp(x), dense or MoE with its shared expert, rounded as the training forward rounds. Where
// experts are all there is, their outputs are summed into h and the result is empty; else mlp(x) is in y,
// which is returned and is still to be added to h. Only the weights of experts that tokens chose are read.
// routes [T, top-k] i32 = the experts of each token, where the block is MoE and they are wanted.
TensorView ForwardMlp(const Context& context, const DecodeWeights& weights, const Block& block, TensorView x,
                      TensorView h, TensorView y, TensorView routes = {});

}  // namespace moebius
