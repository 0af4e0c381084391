// Attention over answers that share their prompt's tokens (TokenLayout): its operands with the prompt's rows
// copied before each answer, and its results brought back. What attention computes for a row is what it
// computes for the same sequence alone.
#pragma once

#include "core/layers/layer.h"

namespace moebius {

// [E, n] in scratch: rows of x [T, n] act for attention.
TensorView ToAttentionRows(const Pass& pass, TensorView x);
// The same with zeros in the copies: gradients of outputs, which only the tokens' own rows have.
TensorView ToOwnAttentionRows(const Pass& pass, TensorView x);
// x [T, n] = each token's own row of rows [E, n]: outputs, and gradients of queries.
void FromAttentionRows(const Pass& pass, TensorView rows, TensorView x);
// x [T, n] act = sum over each token's rows [E, n], in order, in fp32: gradients of keys and values.
void SumAttentionRows(const Pass& pass, TensorView rows, TensorView x);

}  // namespace moebius
