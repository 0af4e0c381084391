#include "optim/stored.h"

#include <string>

namespace moebius {
namespace {

TensorView Flat(TensorView view) { return view.Reshape({view.elements()}); }

}  // namespace

std::vector<int64_t> Dims(const Shape& shape) {
  std::vector<int64_t> dims(shape.rank());
  for (int i = 0; i < shape.rank(); ++i) dims[i] = shape[i];
  return dims;
}

std::vector<Stored> OwnedWeights(const Trainer& trainer) {
  const Mesh& mesh = trainer.mesh();
  std::vector<Stored> out;
  int64_t turn = 0;
  for (const Model* model : trainer.stages().models()) {
    for (const auto& parameter : model->parameters().all()) {
      const bool tied = parameter.get() == trainer.stages().shared_table();
      const Communicator& group = tied                       ? *mesh.tied_replicas()
                                  : parameter->spec().expert ? mesh.expert_replicas()
                                                             : mesh.dense_replicas();
      for (const Piece& piece : parameter->spec().pieces) {
        const Stored stored{{piece.name, DType::kF32, Dims(piece.shape)},
                            Flat(parameter->master()).Rows(piece.offset, piece.shape.elements())};
        const int64_t writer = tied ? 0 : turn++ % group.size();
        if (writer == group.rank()) out.push_back(stored);
      }
    }
    // Copies of embedding and head, which released checkpoints store with the MTP layers.
    for (const PieceAlias& alias : model->aliases()) {
      if (turn++ % mesh.dense_replicas().size() != mesh.dense_replicas().rank()) continue;
      const bool table = alias.of == "model.embed_tokens.weight";
      const Parameter& source = table ? *model->embedding_table() : *model->head().weight();
      out.push_back({{alias.name, DType::kF32, Dims(source.shape())}, Flat(source.master())});
    }
  }
  return out;
}

}  // namespace moebius
