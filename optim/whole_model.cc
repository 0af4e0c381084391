#include "optim/whole_model.h"

#include <map>
#include <sstream>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "optim/stored.h"

namespace moebius {
namespace {

// Tensors of MTP layers, their copies of embedding and head included.
bool IsMtp(const ModelConfig& config, const std::string& name) {
  const std::string prefix = "model.layers.";
  return name.starts_with(prefix) && std::atoll(name.c_str() + prefix.size()) >= config.num_hidden_layers;
}

// Of the tensors of MTP layers, those copies.
bool IsCopy(const std::string& name) {
  return name.ends_with(".embed_tokens.weight") || name.ends_with(".shared_head.head.weight");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> GatherWholeModel(Trainer& trainer, const ModelOptions& given,
                                                        WholeModelOn where) {
  Mesh& mesh = trainer.mesh();
  Communicator& all = mesh.all();
  Stream& stream = mesh.stream("control");
  const Context& context = trainer.context();
  RETURN_IF_ERROR(trainer.GatherMasters());
  std::vector<Stored> mine;
  for (Stored& stored : OwnedWeights(trainer)) {
    const std::string& name = stored.spec.name;
    const bool left_out = IsMtp(trainer.model_config(), name) && (!given.mtp || IsCopy(name));
    if (!left_out) mine.push_back(std::move(stored));
  }
  std::string names;
  for (const Stored& stored : mine) names += stored.spec.name + "\n";
  ASSIGN_OR_RETURN(const std::vector<std::string> lists, mesh.GatherText(names));
  const bool everywhere = where == WholeModelOn::kEveryRank;
  const auto read = [&](TensorView view, std::vector<float>& values) {
    context.backend.CopyToHost(context.stream, view, values.data());
    context.stream.Synchronize();
  };
  if (all.rank() != 0 && !everywhere) {
    for (const Stored& stored : mine) {
      std::vector<float> values(stored.view.elements());
      read(stored.view, values);
      all.Send(stream, {.what = "whole model"}, 0, 0,
               TensorView(values.data(), DType::kF32, {stored.view.elements()}));
      stream.Synchronize();
      RETURN_IF_ERROR(all.status());
    }
    return std::unique_ptr<Model>();
  }
  ModelOptions options = given;
  options.storage.training = false;
  auto model = std::make_unique<Model>(trainer.model_config(), context.backend, context.stream, options);
  struct Place {
    Parameter* parameter;
    const Piece* piece;
  };
  std::map<std::string, Place> places;
  for (const auto& parameter : model->parameters().all()) {
    for (const Piece& piece : parameter->spec().pieces) places[piece.name] = {parameter.get(), &piece};
  }
  for (int r = 0; r < all.size(); ++r) {
    std::istringstream lines(lists[r]);
    size_t next = 0;
    for (std::string name; std::getline(lines, name);) {
      const auto found = places.find(name);
      CHECK(found != places.end()) << name;
      const auto [parameter, piece] = found->second;
      std::vector<float> values(piece->shape.elements());
      if (r == all.rank()) read(mine[next++].view, values);
      const TensorView there(values.data(), DType::kF32, {piece->shape.elements()});
      if (everywhere) {
        all.Broadcast(stream, {.what = "whole model"}, r, there);
      } else if (r != 0) {
        all.Recv(stream, {.what = "whole model"}, r, 0, there);
      }
      stream.Synchronize();
      RETURN_IF_ERROR(all.status());
      SetParameter(context.backend, context.stream, *parameter, piece->offset, values);
    }
  }
  return model;
}

}  // namespace moebius
