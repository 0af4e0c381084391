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

// Natural logarithms for the predictions of every group, in order, of logits times the inverse temperature,
// with products that round as `rounding` says. Runs over about kScoredTokens tokens at once.
inline constexpr int64_t kScoredTokens = 8192;
std::vector<float> ScoreGroups(const Model& model, const Context& context, Microbatch& microbatch,
                               std::span<const AnswerGroup> groups, double temperature,
                               Rounding rounding = Rounding::kNone);

}  // namespace moebius
