// Steps of direct preference optimisation (Rafailov et al. 2023, "Direct Preference Optimization"): with
//   z = beta * ((log pi - log ref)(chosen) - (log pi - log ref)(rejected))
// the mean over pairs of -(1 - s) log sigmoid(z) - s log sigmoid(-z), s the label smoothing (Mitchell 2023).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "rl/loop/policy_source.h"
#include "rl/loop/step_source.h"

namespace moebius {

namespace proto {
class Dpo;
}

struct PreferencePair {
  std::vector<int32_t> prompt, chosen, rejected;  // the answers with their end markers
};

// Lines {"prompt": "..." or "messages": [...], "chosen": "...", "rejected": "..."}. DamagedError naming file
// and line for anything else and for two equal answers; empty lines are passed over, and pairs longer than
// `max_length` are left out and counted.
struct PreferencePairs {
  std::vector<PreferencePair> pairs;
  int64_t left_out = 0;
};
absl::StatusOr<PreferencePairs> ReadPreferencePairs(const std::string& path, const PromptCodec& codec,
                                                    int64_t max_length);

// One pair: the loss, and its derivative by the log-probability of each token of the chosen answer (the
// rejected one's is the negative).
struct PairLoss {
  double loss = 0;
  double slope = 0;
  double margin = 0;  // z
};
PairLoss ComputePairLoss(double beta, double label_smoothing, double chosen, double rejected);

class DpoSource final : public StepSource {
 public:
  // `options` is borrowed.
  DpoSource(const SourceContext& context, PreferencePairs pairs, const proto::Dpo& options);

  absl::StatusOr<StepReport> Step() override;
  absl::StatusOr<StepReport> Evaluate() override;
  absl::Status Start(const std::string& reference) override;

 private:
  SourceContext context_;
  PreferencePairs pairs_;
  const proto::Dpo& options_;
  PolicyModel policy_;
  std::unique_ptr<Model> reference_;
};

}  // namespace moebius
