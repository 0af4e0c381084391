#include "core/model/score.h"

#include <algorithm>

#include "core/backend/draw.h"

namespace moebius {

std::vector<std::vector<float>> ScoreSequences(const Model& model, const Context& context, Microbatch& mb,
                                               std::span<const int32_t> ids,
                                               std::span<const int32_t> starts) {
  int64_t longest = 0;
  for (size_t s = 1; s < starts.size(); ++s) longest = std::max<int64_t>(longest, starts[s] - starts[s - 1]);
  model.ServePositions(context.backend, context.stream, longest);
  mb.LoadRagged(context.stream, ids, starts);
  model.Forward(context, Objective::WithoutBackward(), mb);
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

std::vector<float> ScoreGroups(const Model& model, const Context& context, Microbatch& mb,
                               std::span<const AnswerGroup> groups, const ScoreOptions& options) {
  Objective objective = Objective::WithoutBackward(options.max_expert_rows);
  objective.rounding = options.rounding;
  objective.inverse_temperature = DrawScale(options.temperature);
  std::vector<float> out;
  for (size_t begin = 0, end = 0; begin < groups.size(); begin = end) {
    int64_t tokens = 0;
    while (end < groups.size() && (end == begin || tokens + groups[end].Tokens() <= kScoredTokens)) {
      tokens += groups[end++].Tokens();
    }
    mb.LoadGroups(context.stream, groups.subspan(begin, end - begin));
    model.Forward(context, objective, mb);
    for (const float loss : ToHost(context.backend, context.stream, mb.losses)) out.push_back(-loss);
    mb.saved.Reset();
  }
  return out;
}

}  // namespace moebius
