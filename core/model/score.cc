#include "core/model/score.h"

namespace moebius {

std::vector<std::vector<float>> ScoreSequences(const Model& model, const Context& context, Microbatch& mb,
                                               std::span<const int32_t> ids,
                                               std::span<const int32_t> starts) {
  mb.LoadRagged(context.stream, ids, starts);
  Objective objective;
  objective.gradients = false;
  model.Forward(context, objective, mb);
  std::vector<float> losses(mb.losses.elements());
  context.backend.CopyToHost(context.stream, mb.losses, losses.data());
  context.stream.Synchronize();
  mb.saved.Reset();
  std::vector<std::vector<float>> out;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    std::vector<float>& row = out.emplace_back();
    for (int32_t i = starts[s]; i + 1 < starts[s + 1]; ++i) row.push_back(-losses[i]);
  }
  return out;
}

}  // namespace moebius
