// Steps of reinforcement with verifiable rewards: sample, judge, weigh, update.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "core/base/random.h"
#include "rl/loop/policy_batch.h"
#include "rl/loop/policy_model.h"
#include "rl/loop/problem_evaluation.h"
#include "rl/loop/program_watch.h"
#include "rl/loop/rollout.h"
#include "rl/loop/signal_watch.h"
#include "rl/loop/step_source.h"

namespace moebius {

namespace proto {
class Evaluate;
class Rl;
}  // namespace proto

// What every kind of source needs; borrowed.
struct SourceContext {
  Trainer& trainer;
  const PromptCodec& codec;
  uint64_t seed = 1;
  int64_t sequences = 0;                 // a step
  int64_t max_length = 0;                // tokens of a prompt with its answer
  std::string eval_name;                 // eval/NAME
  const ProblemSet* held_out = nullptr;  // null: nothing to evaluate
  const Scorer* held_out_scorer = nullptr;
  const proto::Evaluate& evaluate;
  const proto::Rl& rl;  // sampling of evaluations too
};

// UsageErrors naming the field for values that do not go together, or not with the model; ranges are the
// recipe's (launch/recipe_ranges). Of sampling, for all tasks that sample or evaluate:
absl::Status CheckRl(const proto::Rl& rl, const ModelConfig& model);
// Of what a policy learns by.
absl::Status CheckPolicy(const proto::Rl& rl);

class PolicySource final : public StepSource {
 public:
  // `journal` may be null. CheckRl and CheckPolicy have passed.
  PolicySource(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer,
               std::unique_ptr<Journal> journal, std::string samples_folder);

  absl::StatusOr<StepReport> Step() override;
  absl::StatusOr<StepReport> Evaluate() override;
  absl::Status Start(const std::string& reference) override;

 private:
  struct Drawn {
    std::vector<RolloutGroup> groups;
    int64_t trained = 0;  // the first so many are what the step learns from; the others have made room
    double seconds = 0;
  };
  absl::StatusOr<Drawn> SampleStep();
  absl::StatusOr<std::vector<RolloutGroup>> Sample(uint64_t first_problem, int64_t count);
  bool ArchivesNext() const;  // whether the step to come goes to the archive
  enum class Routes { kOwn, kRollouts };
  void Score(const Model& model, Routes routes, std::vector<float> RolloutSample::*to,
             std::vector<RolloutGroup>& groups);
  absl::Status FillProximal(std::vector<RolloutGroup>& groups);
  absl::Status AddRoutes(StepReport& report) const;
  static void AddRolloutTimes(const Drawn& drawn, StepReport& report);
  absl::Status AddSums(PolicyBatch& batch, StepReport& report);
  absl::Status Archive(std::vector<RolloutGroup>& groups, const PolicyBatch& batch, int64_t step);
  PolicyOptions GuardEntropy(std::span<const RolloutGroup> groups, StepReport& report);

  SourceContext context_;
  const proto::Rl& rl_;
  ProblemTools tools_;
  std::unique_ptr<Journal> journal_;
  std::string samples_folder_;
  PolicyOptions options_;
  RolloutOptions rollout_;
  DecoderOptions decoder_;
  bool needs_reference_ = false;
  PolicyModel policy_;
  std::unique_ptr<Model> reference_;
  ProgramWatch programs_;
  SignalWatch watch_;
};

}  // namespace moebius
