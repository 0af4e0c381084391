// Sampled answers and their rewards: the first half of a step of reinforcement. Every rank samples its share
// of the prompts with the whole policy; then all ranks have all samples.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/generate/generate.h"
#include "parallel/mesh.h"
#include "rl/loop/journal.h"
#include "rl/problems/problem.h"
#include "rl/problems/prompt_codec.h"
#include "rl/problems/scoring.h"

namespace moebius {

struct RolloutSample {
  std::vector<int32_t> tokens;           // the end marker included
  std::vector<float> logprobs;           // [tokens] of the sampling policy, at its temperature
  std::vector<float> sampling_logprobs;  // [tokens] after top-k and top-p too
  std::vector<float> proximal;           // [tokens] the policy at the start of the step, as trained; or empty
  std::vector<float> live;               // [tokens] the policy after the step, as trained; for the archive
  std::vector<float> reference;          // [tokens] or empty
  std::vector<Route> routes;             // of all tokens but the last, where the decoder keeps them
  uint64_t sequence = 0;                 // tells its random numbers from those of others with the run's seed
  bool finished = false;                 // by an end marker
  int64_t drafts = 0, accepted_drafts = 0;  // GenerateResult
  std::string text;
  ScoredAnswer score;
};

struct RolloutGroup {
  uint64_t problem = 0;
  std::vector<int32_t> prompt;
  std::vector<Route> prompt_routes;  // of its first sample
  std::vector<RolloutSample> samples;
};

struct RolloutOptions {
  int64_t group_size = 1;
  int64_t max_new = 64;
  SamplingParams sampling = {};
  int64_t max_batch = 512;
  int64_t max_length = 0;  // of a prompt with max_new tokens
  LogProbs logprobs = LogProbs::kAsTrained;
};

// What prompts, answers and rewards of a run are made of; borrowed.
struct ProblemTools {
  const ProblemSet& problems;
  const PromptCodec& codec;
  const Scorer& scorer;
};

// What SampleGroups would say of these problems, without sampling.
absl::Status CheckPrompts(const ProblemSet& problems, const PromptCodec& codec,
                          const std::vector<uint64_t>& indices, const RolloutOptions& options);

// Samples of this rank: group i is of problem `problems[i]`; its samples' random numbers are those of
// sequences (first_group + i) * group_size + 0, 1, ... UsageError for a prompt that is too long.
absl::StatusOr<std::vector<RolloutGroup>> SampleGroups(Decoder& decoder, const ProblemTools& tools,
                                                       const std::vector<uint64_t>& problems,
                                                       uint64_t first_group, const RolloutOptions& options);

// Fills in every sample's score. Verdicts that depend on time are looked up in the journal first and written
// there, and a share of them is judged twice (Scorer::JudgesAgain); null: neither. Programs are judged
// several at once.
absl::Status ScoreSamples(const ProblemTools& tools, uint64_t seed, uint64_t first_sample, Journal* journal,
                          std::vector<RolloutGroup>& groups);

// Groups of all ranks, in rank order. Collective.
absl::StatusOr<std::vector<RolloutGroup>> GatherGroups(Mesh& mesh, const std::vector<RolloutGroup>& mine);

// The part [begin, end) of n items that rank `rank` of `ranks` works on.
std::pair<int64_t, int64_t> ShareOf(int64_t n, int rank, int ranks);

}  // namespace moebius
