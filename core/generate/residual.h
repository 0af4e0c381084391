// Steps between the sublayers of a block, for generation: nothing is kept for a backward.
#pragma once

#include "core/backend/context.h"
#include "core/layers/rms_norm.h"

namespace moebius {

// s = x + add, y = norm(s), s in x's memory; without `add` s is x. All [T, hidden] act.
void AddNorm(const Context& context, TensorView x, TensorView add, const RmsNormLayer& norm, TensorView y);

// Rows `index` [n] i32 of x, in the context's scratch.
TensorView Gather(const Context& context, TensorView x, TensorView index);

}  // namespace moebius
