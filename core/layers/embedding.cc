#include "core/layers/embedding.h"

#include "core/backend/ops.h"

namespace moebius {

void TokenEmbedding::Forward(const Pass& pass, TensorView ids, TensorView y) const {
  pass.saved[ids_] = ids;
  Embedding(pass.context, {.table = table_->weight(), .ids = ids, .out = y});
}

void TokenEmbedding::BackwardWeight(const Pass& pass) const {
  EmbeddingBackward(pass.context, {.ids = pass.saved[ids_], .dy = pass.saved[dy_], .dtable = table_->grad()});
}

}  // namespace moebius
