// From a recipe's task to the steps of its run (SFT, DISTILL, DPO, GRPO): tokenizer, prompts, problems,
// rewards, and the source that makes batches of them.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "launch/recipe.h"
#include "launch/train/setup.h"
#include "launch/train/tokenizer_files.h"
#include "rl/loop/step_source.h"
#include "rl/loop/worked_answers.h"
#include "rl/problems/problem.h"
#include "rl/problems/prompt_codec.h"
#include "rl/problems/scoring.h"

namespace moebius {

// tokenizer.json of the recipe's `tokenizer` or of init.from, with new_token added. UsageError where there is
// neither.
absl::StatusOr<std::string> TokenizerJsonOf(const proto::Recipe& recipe);

// The first id that new_token adds to it; absent where it adds none.
absl::StatusOr<std::optional<int64_t>> FirstNewToken(const proto::Recipe& recipe);

// Everything that a source borrows, and the source.
class TaskSource {
 public:
  // Collective. `folder`: of the run, on the rank that writes; "" on the others and where nothing is kept.
  static absl::StatusOr<std::unique_ptr<TaskSource>> Make(const proto::Recipe& recipe, Training& training,
                                                          const std::string& folder,
                                                          sandbox::Sandbox* sandbox);

  StepSource& source() { return *source_; }
  const TokenizerFiles& files() const { return files_; }
  bool needs_reference() const { return needs_reference_; }
  // Of data that were read: "1,203 conversations (4 longer than 512 tokens left out)".
  const std::string& note() const { return note_; }

 private:
  explicit TaskSource(const proto::Recipe& recipe) : r_(recipe) {}
  absl::Status OpenText();
  absl::Status OpenProblems(sandbox::Sandbox* sandbox);
  // `run_folder`: on every rank.
  absl::Status OpenSource(Training& training, const std::string& folder, const std::string& run_folder);
  // Problems of files, each of which would end the run at the step that asks it.
  absl::Status CheckProblems(const SourceContext& context) const;
  absl::StatusOr<WorkedAnswers> OpenAnswers(const SourceContext& context);

  const proto::Recipe& r_;
  TokenizerFiles files_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<PromptCodec> codec_;
  std::unique_ptr<ProblemSet> problems_, held_out_;
  std::optional<Scorer> scorer_, held_out_scorer_;
  std::unique_ptr<StepSource> source_;
  bool needs_reference_ = false;
  std::string note_;
};

}  // namespace moebius
