// Rejection sampling: answers of a model that were judged right become conversations to learn from. Its steps
// train nothing.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/io/json_lines.h"
#include "rl/loop/policy_source.h"
#include "rl/loop/step_source.h"

namespace moebius {

struct RejectionOptions {
  int64_t keep = 1;  // right answers of each problem, of those that differ the first
};

class RejectionSource final : public StepSource {
 public:
  // `journal` may be null. `kept_path`: JSON lines {"step": ..., "messages": [...]} that data/conversations.h
  // reads, written by the rank whose path is not "". Lines of later steps than the trainer's are cut off at
  // Start.
  RejectionSource(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer,
                  const RejectionOptions& options, std::unique_ptr<Journal> journal, std::string kept_path);

  absl::StatusOr<StepReport> Step() override;
  absl::StatusOr<StepReport> Evaluate() override;
  absl::Status Start(const std::string&) override;

 private:
  SourceContext context_;
  ProblemTools tools_;
  RejectionOptions options_;
  std::unique_ptr<Journal> journal_;
  RolloutOptions rollout_;
  DecoderOptions decoder_;
  std::string kept_path_;
  std::optional<JsonLinesWriter> kept_;
  PolicyModel policy_;
  ProgramWatch programs_;
};

}  // namespace moebius
