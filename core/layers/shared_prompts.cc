#include "core/layers/shared_prompts.h"

#include "core/backend/ops.h"

namespace moebius {

TensorView ToAttentionRows(const Pass& pass, TensorView x) {
  const TensorView rows =
      pass.context.scratch.New(x.dtype, {pass.layout.attention_rows.elements(), x.cols()});
  GatherRows(pass.context, {.x = x, .index = pass.layout.attention_rows, .out = rows});
  return rows;
}

TensorView ToOwnAttentionRows(const Pass& pass, TensorView x) {
  const TensorView rows =
      pass.context.scratch.New(x.dtype, {pass.layout.attention_rows.elements(), x.cols()});
  Zero(pass.context, rows);
  ScatterRows(pass.context, {.x = x, .index = pass.layout.token_rows, .out = rows});
  return rows;
}

void FromAttentionRows(const Pass& pass, TensorView rows, TensorView x) {
  GatherRows(pass.context, {.x = rows, .index = pass.layout.token_rows, .out = x});
}

void SumAttentionRows(const Pass& pass, TensorView rows, TensorView x) {
  ArenaScope scope(pass.context.scratch);
  const TensorView sums = pass.context.scratch.New(DType::kF32, {x.rows(), x.cols()});
  Zero(pass.context, sums);
  EmbeddingBackward(pass.context, {.ids = pass.layout.attention_rows, .dy = rows, .dtable = sums});
  Cast(pass.context, sums, x);
}

}  // namespace moebius
