// Log-probabilities of given tokens under a model.
#pragma once

#include <span>
#include <vector>

#include "core/model/model.h"

namespace moebius {

// Natural logarithms for tokens 1..n-1 of each sequence; sequence s is ids [starts[s], starts[s + 1]). All
// sequences run as one microbatch.
std::vector<std::vector<float>> ScoreSequences(const Model& model, const Context& context,
                                               Microbatch& microbatch, std::span<const int32_t> ids,
                                               std::span<const int32_t> starts);

struct ScoreOptions {
  double temperature = 1;  // that logits are divided by
  Rounding rounding = Rounding::kNone;
  int64_t max_expert_rows = 0;  // as in RecomputePolicy
};
// Natural logarithms for the predictions of every group, in order. Runs over about kScoredTokens tokens at
// once.
inline constexpr int64_t kScoredTokens = 8192;
std::vector<float> ScoreGroups(const Model& model, const Context& context, Microbatch& microbatch,
                               std::span<const AnswerGroup> groups, const ScoreOptions& options = {});

}  // namespace moebius
