#include "rl/loop/worked_answers.h"

#include <algorithm>

#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/permutation.h"

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

WorkedAnswers::WorkedAnswers(const SourceContext& context, Conversations conversations, bool shuffle)
    : context_(context), conversations_(std::move(conversations)), shuffle_(shuffle) {}

WorkedAnswers::WorkedAnswers(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer)
    : context_(context), problems_(&problems), scorer_(&scorer) {}

absl::StatusOr<AnswerGroup> WorkedAnswers::At(uint64_t index) const {
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

absl::Status WorkedAnswers::CheckProblems(int64_t drawn) const {
  if (problems_ == nullptr) return absl::OkStatus();
  const int64_t most = problems_->size() > 0 ? problems_->size() : drawn;
  for (int64_t i = 0; i < most; ++i) RETURN_IF_ERROR(At(i).status());
  return absl::OkStatus();
}

absl::StatusOr<WorkedAnswers::Batch> WorkedAnswers::Next() const {
  Trainer& trainer = context_.trainer;
  const uint64_t first = trainer.state().sequences;
  Batch batch;
  absl::Status status;
  for (int64_t i = 0; i < context_.sequences && status.ok(); ++i) {
    absl::StatusOr<AnswerGroup> group = At(first + i);
    status = group.status();
    if (!group.ok()) break;
    batch.predictions += group->Predictions();
    batch.groups.push_back(*std::move(group));
  }
  RETURN_IF_ERROR(trainer.mesh().Agree(status));
  return batch;
}

}  // namespace moebius
