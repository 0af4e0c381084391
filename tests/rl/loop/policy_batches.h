// Batches made of samples, and their weights as flat lists.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "rl/loop/policy_batch.h"
#include "tests/rl/loop/samples.h"

namespace moebius {

using Floats = std::vector<float>;
inline constexpr std::optional<double> kNone = std::nullopt;

// Four groups of four: mixed rewards, the second one flat.
inline std::vector<RolloutGroup> Mixed() {
  return MakeSamples({{1, 0, 0, 1}, {1, 1, 1, 1}, {0, 0, 0, 1}, {0.25, 0.5, 1, 0}});
}

inline Floats LossesOf(const GroupBatch& batch, std::span<const RolloutGroup> samples,
                       bool judged_only = true) {
  // Found again by tokens: a batch may leave out groups and answers.
  Floats losses;
  for (const AnswerGroup& group : batch.groups) {
    for (const AnswerGroup::Answer& answer : group.answers) {
      const size_t before = losses.size();
      for (const RolloutGroup& g : samples) {
        for (const RolloutSample& s : g.samples) {
          if (losses.size() > before || g.prompt != group.prompt || s.tokens != answer.tokens) continue;
          if (judged_only && !s.score.reward) continue;
          for (const float logprob : s.logprobs) losses.push_back(-logprob);
        }
      }
      EXPECT_EQ(losses.size() - before, answer.tokens.size());
    }
  }
  return losses;
}

inline Floats WeightsOf(const GroupBatch& batch) {
  Floats out;
  for (const AnswerGroup& group : batch.groups) {
    for (const AnswerGroup::Answer& answer : group.answers) {
      EXPECT_EQ(answer.weights.size(), answer.tokens.size());
      out.insert(out.end(), answer.weights.begin(), answer.weights.end());
    }
  }
  return out;
}

inline Floats Weigh(const GroupBatch& batch, const Floats& losses) {
  Floats out(losses.size(), std::numeric_limits<float>::quiet_NaN());
  batch.weigh(0, std::ssize(batch.groups), losses, out);
  return out;
}

inline Floats FirstWeights(const PolicyOptions& options, std::span<const RolloutGroup> samples,
                           int64_t least = 1) {
  const PolicyBatch batch(options, samples, least);
  EXPECT_EQ(batch.updates().size(), 1u);
  return WeightsOf(batch.updates()[0]);
}

inline void ExpectNear(const Floats& got, const Floats& want, double relative, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], relative * std::abs(want[i]) + 1e-9) << what << " token " << i;
  }
}

}  // namespace moebius
