// Steps of supervised fine-tuning: the loss is the mean cross-entropy of the answers' tokens, prompts have
// none.
#pragma once

#include <utility>

#include "rl/loop/step_source.h"
#include "rl/loop/worked_answers.h"

namespace moebius {

class SftSource final : public StepSource {
 public:
  SftSource(const SourceContext& context, WorkedAnswers answers)
      : context_(context),
        answers_(std::move(answers)),
        policy_(context.trainer, context.max_length, context.rl) {}
  SftSource(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer)
      : SftSource(context, WorkedAnswers(context, problems, scorer)) {}

  absl::StatusOr<StepReport> Step() override;
  absl::StatusOr<StepReport> Evaluate() override;
  absl::Status Start(const std::string&) override { return absl::OkStatus(); }

 private:
  SourceContext context_;
  WorkedAnswers answers_;
  PolicyModel policy_;
};

}  // namespace moebius
