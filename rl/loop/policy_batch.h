// From samples with rewards to what the trainer steps on: advantages, the weights of tokens, and the figures
// that say how a step of reinforcement went. All on the host; the formulas are rl/objective's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "optim/trainer.h"
#include "rl/loop/rollout.h"
#include "rl/loop/step_source.h"
#include "rl/objective/advantages.h"
#include "rl/objective/policy_loss.h"

namespace moebius {

struct PolicyOptions {
  AdvantageKind advantage = AdvantageKind::kGrpo;
  PolicyObjective objective;
  double entropy_coefficient = 0;
  double temperature = 1;
  int64_t updates = 1;
  bool exact = true;        // samples' log-probabilities are the trained policy's at the start of the step
  double kl_in_reward = 0;  // coefficient of k1 taken off the rewards
  bool replays_routes = false;  // updates take the samples' routes
  bool cuts = false;            // top-k or top-p: tokens were drawn at their sampling_logprobs
};

// What the ranks' callbacks add up over a step.
struct PolicySums {
  double loss = 0, kl = 0, ratio = 0, tokens = 0;
  double clipped_low = 0, clipped_high = 0, clipped_dual = 0;
  double ratio_high = 0;     // largest
  double mismatch_high = 0;  // largest |proximal - behaviour|, of the whole vocabulary whatever was cut
};

class PolicyBatch {
 public:
  // `groups`: of all ranks, outlives the batch, which refers to its routes; all get their advantages.
  // `least`: groups that a trainer's batch needs; where fewer have a signal, others come along that predict
  // nothing, or, where none has, are measured with weights of 0.
  PolicyBatch(const PolicyOptions& options, std::span<const RolloutGroup> groups, int64_t least);

  bool has_signal() const { return has_signal_; }
  // One an optimizer update; they refer to the batch. Each has either weights and `observe`, or `weigh`,
  // which observes too.
  const std::vector<GroupBatch>& updates() const { return batches_; }
  // Of every answer of `groups`, in order; NaN for answers that could not be judged.
  const std::vector<double>& advantages() const { return answer_advantages_; }

  // Of this rank's calls so far; sums are to be added over ranks.
  PolicySums& sums() { return sums_; }
  // Set where an exact rollout was not: "token 5 of groups 2 to 3: sampled at -1.25, trained at -1.26".
  const std::string& mismatch() const { return mismatch_; }

 private:
  // The groups of one update, and their tokens one after another.
  struct Part {
    std::vector<AnswerGroup> groups;
    std::vector<int64_t> first_token;  // of each group, and the end
    std::vector<int64_t> first_answer;
    std::vector<int64_t> lengths;  // of each answer
    std::vector<double> advantages, behaviour, sampling, proximal, reference;
    std::vector<bool> fills;  // groups that are here for their number alone
    BatchTotals totals;
    bool first = false;  // nothing has been updated yet: the live policy is the proximal one
  };

  void SetAdvantages(std::span<const RolloutGroup> groups);
  // An update on the groups `of`, of which those that were not chosen fill it up.
  void AddPart(std::span<const RolloutGroup> groups, std::span<const int64_t> of,
               std::span<const int64_t> chosen, const BatchTotals& totals, bool first);
  // Of one group, whose tokens the policy gives these log-probabilities.
  PolicyLoss LossOf(const Part& part, int64_t group, std::span<const double> live) const;
  bool KnowsWeights(const Part& part) const;
  // Groups whose tokens have these cross-entropies are added to the sums. The loss's gradient by each
  // log-probability.
  std::vector<double> Observe(const Part& part, int64_t first, int64_t count, std::span<const float> losses);
  void Add(const PolicyLoss& loss, int64_t tokens);

  PolicyOptions options_;
  std::vector<double> token_advantages_;   // of all groups' tokens
  std::vector<double> answer_advantages_;  // of all groups' answers
  std::vector<std::unique_ptr<Part>> parts_;
  std::vector<GroupBatch> batches_;
  bool has_signal_ = false;
  PolicySums sums_;
  std::string mismatch_;
};

}  // namespace moebius
