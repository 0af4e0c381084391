// Answers that somebody wrote, a batch for each step: of conversations, or to problems.
#pragma once

#include <vector>

#include "data/conversations.h"
#include "rl/loop/policy_source.h"

namespace moebius {

// One answer for the trainer: from the first token of an answer on; questions in between do not count.
AnswerGroup ToAnswerGroup(const EncodedChat& chat);

class WorkedAnswers {
 public:
  struct Batch {
    std::vector<AnswerGroup> groups;  // context.sequences of them
    int64_t predictions = 0;          // of all
  };

  // Conversations that were read; each epoch in another order where `shuffle`.
  WorkedAnswers(const SourceContext& context, Conversations conversations, bool shuffle);
  // Worked answers to problems, one after another without end; UsageError for one that has none.
  WorkedAnswers(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer);

  // What Next would say of any problem of a file, or of the first `drawn` of an endless set, before the first
  // step.
  absl::Status CheckProblems(int64_t drawn) const;

  // Collective. The answers at the trainer's data position, the same on all ranks.
  absl::StatusOr<Batch> Next() const;

 private:
  absl::StatusOr<AnswerGroup> At(uint64_t index) const;

  SourceContext context_;
  Conversations conversations_;
  bool shuffle_ = true;
  const ProblemSet* problems_ = nullptr;
  const Scorer* scorer_ = nullptr;
};

}  // namespace moebius
