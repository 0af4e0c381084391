// A frozen model of any shape whose predictions a student learns.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "optim/trainer.h"

namespace moebius {

// Whether ids mean the same to the model in `folder` (a checkpoint or a Hugging Face folder) and to a student
// with this tokenizer and so many logits: UsageError naming both where tokens differ or where the teacher has
// fewer logits (what it has beyond the student's is padding); MissingError without config.json or
// tokenizer.json.
absl::Status CheckTeacher(const std::string& folder, const Tokenizer& tokenizer, int64_t vocab_size);

class TeacherModel {
 public:
  // Collective. The folder's weights, as one stage, on every rank of the trainer that holds a head; nothing
  // on the others. For sequences of up to `max_positions`. CheckTeacher has passed.
  static absl::StatusOr<std::unique_ptr<TeacherModel>> Load(Trainer& trainer, const std::string& folder,
                                                            int64_t max_positions);

  // Runs over groups as Microbatch::LoadGroups lays them. The head and its input [tokens, hidden] act, valid
  // until the next call; only where this rank holds a head.
  HeadTeacher Run(std::span<const AnswerGroup> groups);

 private:
  TeacherModel(const Context& context, int64_t max_expert_rows)
      : context_(context), objective_(Objective::WithoutBackward(max_expert_rows)) {
    objective_.predicts = false;
  }

  const Context& context_;
  Objective objective_;
  std::unique_ptr<Model> model_;
  std::optional<Microbatch> microbatch_;
};

}  // namespace moebius
