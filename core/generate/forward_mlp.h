// The MLP of a block for generation: forward only, nothing kept. Experts are reached through the layer's
// token exchange, so that expert parallelism serves generation too.
#pragma once

#include "core/layers/block.h"

namespace moebius {

// y [T, hidden] = mlp(x), dense or MoE with its shared expert, without the residual. Only the weights of
// experts that tokens chose are read.
void ForwardMlp(const Context& context, const Block& block, TensorView x, TensorView y);

}  // namespace moebius
