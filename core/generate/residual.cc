#include "core/generate/residual.h"

#include "core/backend/ops.h"

namespace moebius {

void AddNorm(const Context& context, TensorView x, TensorView add, const RmsNormLayer& norm, TensorView y) {
  ArenaScope scope(context.scratch);
  RmsNorm(context, {.x = x,
                    .add = add,
                    .sum = add ? x : TensorView(),
                    .gain = norm.gain().weight(),
                    .y = y,
                    .rstd = context.scratch.New(DType::kF32, {x.rows()}),
                    .epsilon = norm.epsilon()});
}

TensorView Gather(const Context& context, TensorView x, TensorView index) {
  const TensorView out = context.scratch.New(x.dtype, {index.elements(), x.cols()});
  GatherRows(context, {.x = x, .index = index, .out = out});
  return out;
}

}  // namespace moebius
