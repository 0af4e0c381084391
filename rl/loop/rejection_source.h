// Rejection sampling: answers of a model that were judged right become conversations to learn from. Its steps
// train nothing.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "core/io/json_lines.h"
#include "rl/loop/policy_source.h"
#include "rl/loop/step_source.h"

namespace moebius {

struct RejectionOptions {
  int64_t keep = 1;  // right answers of each question in the whole run, of those that differ the first
};

class RejectionSource final : public StepSource {
 public:
  // `journal` may be null. `kept_path`: JSON lines {"step": ..., "messages": [...]} that data/conversations.h
  // reads, written by the rank whose path is not "". At Start lines of later steps than the trainer's are cut
  // off, and the others count as kept. Only that rank's "rejection/kept" knows of earlier processes.
  RejectionSource(const SourceContext& context, const ProblemSet& problems, const Scorer& scorer,
                  const RejectionOptions& options, std::unique_ptr<Journal> journal, std::string kept_path);

  absl::StatusOr<StepReport> Step() override;
  absl::StatusOr<StepReport> Evaluate() override;
  absl::Status Start(const std::string&) override;

 private:
  // Of the lines in kept_path_.
  absl::Status RecallKept();
  // Whether the answer to this problem is one to keep.
  bool Keeps(const Problem& problem, const std::string& answer);

  SourceContext context_;
  ProblemTools tools_;
  RejectionOptions options_;
  std::unique_ptr<Journal> journal_;
  RolloutOptions rollout_;
  DecoderOptions decoder_;
  std::string kept_path_;
  std::optional<JsonLinesWriter> kept_;
  std::map<std::string, std::set<std::string>> kept_answers_;  // by question
  PolicyModel policy_;
  ProgramWatch programs_;
};

}  // namespace moebius
