#include "rl/loop/sft_source.h"

#include <algorithm>

#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/permutation.h"
#include "rl/loop/rl_options.h"

namespace moebius {

AnswerGroup ToAnswerGroup(const EncodedChat& chat) {
  const auto first = std::find(chat.is_answer.begin() + 1, chat.is_answer.end(), true);
  CHECK(first != chat.is_answer.end()) << "a conversation without an answer";
  const int64_t at = first - chat.is_answer.begin();
  AnswerGroup group;
  group.prompt.assign(chat.ids.begin(), chat.ids.begin() + at);
  AnswerGroup::Answer& answer = group.answers.emplace_back();
  answer.tokens.assign(chat.ids.begin() + at, chat.ids.end());
  if (std::find(first, chat.is_answer.end(), false) != chat.is_answer.end()) {
    answer.counts.assign(first, chat.is_answer.end());
  }
  return group;
}

SftSource::SftSource(const SourceContext& context, Conversations conversations, bool shuffle)
    : context_(context),
      conversations_(std::move(conversations)),
      shuffle_(shuffle),
      policy_(context.trainer, context.max_length, context.rl) {}

SftSource::SftSource(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer)
    : context_(context),
      problems_(&problems),
      scorer_(&scorer),
      policy_(context.trainer, context.max_length, context.rl) {}

absl::StatusOr<AnswerGroup> SftSource::At(uint64_t index) const {
  if (problems_ == nullptr) {
    if (conversations_.items.empty()) {
      return UsageError(Concat("no conversation is left to learn from; all ", conversations_.left_out,
                               " are longer than batch.sequence_length ", context_.max_length,
                               "; raise it, or set sft.too_long: CUT"));
    }
    const uint64_t n = conversations_.items.size(), epoch = index / n, within = index % n;
    const uint64_t item =
        shuffle_ ? KeyedPermutation(n, context_.seed, Concat("conversations ", epoch))(within) : within;
    return ToAnswerGroup(conversations_.items[item]);
  }
  const Problem problem = problems_->At(index);
  // Another answer each time that a problem comes: one that is always the same would be learned by heart.
  const std::string answer =
      scorer_->Demonstration(problem, RandomStream(context_.seed, "demonstrations").Bits(index));
  if (answer.empty()) {
    return UsageError(Concat("problem ", problem.id,
                             " has no worked answer to learn from; name conversations in "
                             "sft.data, or give the file's lines a \"solution\""));
  }
  absl::StatusOr<EncodedChat> chat = context_.codec.Example(problem.messages, answer);
  RETURN_IF_ERROR(Annotate(chat.status(), Concat("problem ", problem.id)));
  if (std::ssize(chat->ids) > context_.max_length) {
    return UsageError(Concat("problem ", problem.id, " with its worked answer has ", chat->ids.size(),
                             " tokens; batch.sequence_length is ", context_.max_length, "; raise it"));
  }
  return ToAnswerGroup(*chat);
}

absl::StatusOr<StepReport> SftSource::Step() {
  Trainer& trainer = context_.trainer;
  const uint64_t first = trainer.state().sequences;
  std::vector<AnswerGroup> groups;
  absl::Status status;
  int64_t predictions = 0;
  for (int64_t i = 0; i < context_.sequences && status.ok(); ++i) {
    absl::StatusOr<AnswerGroup> group = At(first + i);
    status = group.status();
    if (!group.ok()) break;
    predictions += group->Predictions();
    groups.push_back(*std::move(group));
  }
  RETURN_IF_ERROR(trainer.mesh().Agree(status));
  const GroupBatch batch{
      .groups = groups, .predictions = predictions, .scale = 1.0 / static_cast<double>(predictions)};
  StepReport report;
  ASSIGN_OR_RETURN(report.metrics, trainer.Step(std::span<const GroupBatch>(&batch, 1), context_.sequences));
  report.values.emplace_back("sft/answer_tokens", static_cast<double>(predictions));
  return report;
}

absl::StatusOr<StepReport> SftSource::Evaluate() {
  return EvaluateHeldOut(context_, policy_, DecoderOptionsOf(context_.rl, context_.trainer));
}

}  // namespace moebius
