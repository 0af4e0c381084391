#include "rl/loop/teacher_model.h"

#include <algorithm>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/model/weights.h"

namespace moebius {

absl::Status CheckTeacher(const std::string& folder, const Tokenizer& tokenizer, int64_t vocab_size) {
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(folder));
  ASSIGN_OR_RETURN(const Tokenizer its, Tokenizer::Load(folder));
  constexpr const char* kAdvice =
      "; a student learns the probability of every token, so both need one vocabulary; use a teacher with "
      "the student's tokenizer, or learn from the teacher's answers (task REJECTION, then SFT)";
  if (its.vocab_size() != tokenizer.vocab_size()) {
    return UsageError(Concat("distill.teacher ", folder, " has a tokenizer of ", its.vocab_size(),
                             " tokens, the student's has ", tokenizer.vocab_size(), kAdvice));
  }
  for (int32_t id = 0; id < its.vocab_size(); ++id) {
    if (its.TokenBytes(id) == tokenizer.TokenBytes(id)) continue;
    return UsageError(Concat("token ", id, " is '", Printable(its.TokenBytes(id)), "' to distill.teacher ",
                             folder, " and '", Printable(tokenizer.TokenBytes(id)), "' to the student",
                             kAdvice));
  }
  if (config.vocab_size < vocab_size) {
    return UsageError(Concat("distill.teacher ", folder, " has logits for ", config.vocab_size,
                             " tokens, the student for ", vocab_size, kAdvice));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TeacherModel>> TeacherModel::Load(Trainer& trainer, const std::string& folder,
                                                                 int64_t max_positions) {
  const Context& c = trainer.context();
  std::unique_ptr<TeacherModel> teacher(new TeacherModel(c, trainer.config().recompute.max_expert_rows));
  const std::vector<Model*> stages = trainer.stages().models();
  const bool predicts =
      std::any_of(stages.begin(), stages.end(), [](const Model* m) { return m->options().stage.head; });
  absl::Status status;
  if (predicts) {
    const ModelOptions options{.storage = {.act = stages[0]->options().storage.act, .training = false},
                               .max_positions = max_positions,
                               .mtp = false};
    absl::StatusOr<LoadedModel> loaded = LoadModel(folder, c.backend, c.stream, options);
    status = loaded.status();
    if (loaded.ok()) {
      teacher->model_ = std::move(loaded->model);
      teacher->microbatch_.emplace(c.backend, teacher->model_->num_slots());
    }
  }
  RETURN_IF_ERROR(trainer.mesh().Agree(status));
  return teacher;
}

HeadTeacher TeacherModel::Run(std::span<const AnswerGroup> groups) {
  CHECK(model_ != nullptr) << "this rank holds no head";
  Microbatch& mb = *microbatch_;
  mb.saved.Reset();
  mb.LoadGroups(context_.stream, groups);
  model_->Forward(context_, objective_, mb);
  return {.head = &model_->head(), .x = mb.hidden};
}

}  // namespace moebius
