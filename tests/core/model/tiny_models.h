// Tiny models of every family, and one batch of tokens, for the tests of whole models.
#pragma once

#include <string>
#include <vector>

#include "core/model/model.h"
#include "tests/core/layers/bench.h"

namespace moebius {

inline constexpr int32_t kTinyVocab = 40;

// deepseek_v3 (query compression, groups, a shared expert), deepseek_v3_mtp (no query compression, two MTP
// modules, tied embeddings), deepseek_v2, qwen3_moe, mixtral, llama, qwen2, qwen3 (tied).
std::vector<std::string> TinyNames();
ModelConfig TinyConfig(const std::string& name);

// `sequences` x (length + 1) ids.
std::vector<int32_t> TinyTokens(int64_t sequences, int64_t length);

// A model with random weights and what runs it. Large weights, so that no part of it is close to doing
// nothing.
struct TinyModel {
  TinyModel(const ModelConfig& config, ModelOptions options = {});
  Microbatch NewMicrobatch() { return Microbatch(bench.backend(), model.num_slots()); }

  Bench bench;
  Model model;
};

// Everything in the objective: token_scale and the like for a global batch of this size.
Objective FullObjective(const ModelConfig& config, int64_t sequences, int64_t length);
// The value that the gradients of one microbatch belong to, in double, after Forward.
double ObjectiveValue(Bench& bench, const Objective& objective, const Microbatch& microbatch);

struct NamedGradient {
  std::string name;
  std::vector<float> values;
};
std::vector<NamedGradient> GradientsOf(TinyModel& tiny);
void ZeroGradients(TinyModel& tiny);
// All within `tolerance` of each other in relative Euclidean distance; 0 means bit by bit.
void ExpectSameGradients(const std::vector<NamedGradient>& got, const std::vector<NamedGradient>& want,
                         double tolerance, const std::string& when);

}  // namespace moebius
