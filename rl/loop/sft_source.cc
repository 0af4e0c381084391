#include "rl/loop/sft_source.h"

#include "core/base/status.h"
#include "rl/loop/rl_options.h"

namespace moebius {

absl::StatusOr<StepReport> SftSource::Step() {
  ASSIGN_OR_RETURN(const WorkedAnswers::Batch answers, answers_.Next());
  const GroupBatch batch{.groups = answers.groups,
                         .predictions = answers.predictions,
                         .scale = 1.0 / static_cast<double>(answers.predictions)};
  StepReport report;
  ASSIGN_OR_RETURN(report.metrics,
                   context_.trainer.Step(std::span<const GroupBatch>(&batch, 1), context_.sequences));
  report.values.emplace_back("sft/answer_tokens", static_cast<double>(answers.predictions));
  return report;
}

absl::StatusOr<StepReport> SftSource::Evaluate() {
  return EvaluateHeldOut(context_, policy_, DecoderOptionsOf(context_.rl, context_.trainer));
}

}  // namespace moebius
