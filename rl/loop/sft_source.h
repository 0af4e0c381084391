// Steps of supervised fine-tuning: the loss is the mean cross-entropy of the answers' tokens, prompts have
// none.
#pragma once

#include <memory>
#include <vector>

#include "data/conversations.h"
#include "rl/loop/policy_source.h"
#include "rl/loop/step_source.h"

namespace moebius {

// One answer for the trainer: from the first token of an answer on; questions in between do not count.
AnswerGroup ToAnswerGroup(const EncodedChat& chat);

class SftSource final : public StepSource {
 public:
  // Conversations that were read; each epoch in another order where `shuffle`.
  SftSource(const SourceContext& context, Conversations conversations, bool shuffle);
  // Worked answers to problems, one after another without end; those without one are passed over.
  SftSource(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer);

  absl::StatusOr<StepReport> Step() override;
  absl::StatusOr<StepReport> Evaluate() override;
  absl::Status Start(const std::string&) override { return absl::OkStatus(); }

 private:
  absl::StatusOr<AnswerGroup> At(uint64_t index) const;

  SourceContext context_;
  Conversations conversations_;
  bool shuffle_ = true;
  const ProblemSet* problems_ = nullptr;
  const Scorer* scorer_ = nullptr;
  PolicyModel policy_;
};

}  // namespace moebius
