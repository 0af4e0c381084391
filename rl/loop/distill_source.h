// Steps of distillation (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"): the mean over
// the answers' tokens of
//   (1 - h) T² KL(teacher || student) + h cross-entropy
// over the whole vocabulary, with both softmaxes at temperature T and h = hard_weight; T² keeps the
// gradients' size as T grows. `divergence: REVERSE` has KL(student || teacher) in its place (Gu et al. 2023,
// MiniLLM).
#pragma once

#include <memory>

#include "rl/loop/step_source.h"
#include "rl/loop/teacher_model.h"
#include "rl/loop/worked_answers.h"

namespace moebius {

namespace proto {
class Distill;
}

class DistillSource final : public StepSource {
 public:
  // options.teacher has passed CheckTeacher; `options` is borrowed.
  DistillSource(const SourceContext& context, WorkedAnswers answers, const proto::Distill& options);

  // Values "distill/kl" (nats, at the temperature, without T²), "distill/cross_entropy", "distill/agreement"
  // (share of tokens whose likeliest one both agree on); metrics.loss is the formula.
  absl::StatusOr<StepReport> Step() override;
  absl::StatusOr<StepReport> Evaluate() override;
  absl::Status Start(const std::string&) override;

 private:
  SourceContext context_;
  WorkedAnswers answers_;
  const proto::Distill& options_;
  PolicyModel policy_;
  std::unique_ptr<TeacherModel> teacher_;
};

}  // namespace moebius
