#include "rl/loop/distill_source.h"

#include "core/base/status.h"
#include "rl/loop/loop.pb.h"
#include "rl/loop/rl_options.h"

namespace moebius {

DistillSource::DistillSource(const SourceContext& context, WorkedAnswers answers,
                             const proto::Distill& options)
    : context_(context),
      answers_(std::move(answers)),
      options_(options),
      policy_(context.trainer, context.max_length, context.rl) {}

absl::Status DistillSource::Start(const std::string&) {
  ASSIGN_OR_RETURN(teacher_, TeacherModel::Load(context_.trainer, options_.teacher(), context_.max_length));
  return absl::OkStatus();
}

absl::StatusOr<StepReport> DistillSource::Step() {
  ASSIGN_OR_RETURN(const WorkedAnswers::Batch answers, answers_.Next());
  const double each = 1.0 / static_cast<double>(answers.predictions);
  const double temperature = options_.temperature(), hard = options_.hard_weight();
  const double soft = (1 - hard) * temperature * temperature;
  const GroupBatch batch{.groups = answers.groups,
                         .predictions = answers.predictions,
                         .scale = hard * each,
                         .teach = [&](int64_t first, int64_t count) {
                           const std::span<const AnswerGroup> groups = answers.groups;
                           HeadTeacher teacher = teacher_->Run(groups.subspan(first, count));
                           teacher.kind = options_.divergence() == proto::Distill::REVERSE
                                              ? DivergenceKind::kReverse
                                              : DivergenceKind::kForward;
                           teacher.inverse_temperature = static_cast<float>(1 / temperature);
                           teacher.scale = static_cast<float>(soft * each);
                           return teacher;
                         }};
  StepReport report;
  StepMetrics& m = report.metrics;
  ASSIGN_OR_RETURN(m, context_.trainer.Step(std::span<const GroupBatch>(&batch, 1), context_.sequences));
  report.values = {{"sft/answer_tokens", static_cast<double>(answers.predictions)},
                   {"distill/kl", m.divergence},
                   {"distill/cross_entropy", m.loss},
                   {"distill/agreement", m.agreement}};
  m.loss = soft * m.divergence + hard * m.loss;
  return report;
}

absl::StatusOr<StepReport> DistillSource::Evaluate() {
  return EvaluateHeldOut(context_, policy_, DecoderOptionsOf(context_.rl, context_.trainer));
}

}  // namespace moebius
