// A model of a few thousand parameters, its tokenizer and a procedural task: all that a source of steps
// borrows.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "optim/trainer.h"
#include "rl/loop/loop.pb.h"
#include "rl/loop/policy_source.h"
#include "rl/problems/problems.pb.h"
#include "rl/problems/scoring.h"

namespace moebius {

struct TinyRunOptions {
  ModelConfig model;  // vocab_size is the tokenizer's
  proto::Problems problems;
  proto::Reward reward;
  proto::Rl rl;
  double lr = 3e-3;
  int64_t sequences = 16;
  uint64_t seed = 1;
  int threads = 2;
  DType act = DType::kF32;
  int64_t microbatch_sequences = 0;
  RecomputePolicy recompute = {};
  Rounding rounding = Rounding::kNone;
  std::string open_answer = {};
};

// Sort two digits, groups of eight, exact rollouts in fp32.
TinyRunOptions SortTwo(const ModelConfig& model);
ModelConfig TinyDense();  // grouped-query attention
ModelConfig TinyMoe();    // latent attention, experts with selection biases

class TinyRun {
 public:
  TinyRun(World& world, const Layout& layout, const TinyRunOptions& options);

  const TinyRunOptions& options() const { return options_; }
  Trainer& trainer() { return *trainer_; }
  const PromptCodec& codec() const { return *codec_; }
  const ProblemSet& problems() const { return *problems_; }
  const Scorer& scorer() const { return *scorer_; }
  SourceContext context();
  std::unique_ptr<PolicySource> NewPolicySource(std::unique_ptr<Journal> journal = nullptr,
                                                const std::string& samples_folder = "");
  // Of all parameters, in order; where one rank has the whole model.
  std::vector<float> Weights() const;

 private:
  TinyRunOptions options_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Trainer> trainer_;
  Tokenizer tokenizer_;
  std::optional<PromptCodec> codec_;
  std::unique_ptr<ProblemSet> problems_, held_out_;
  std::optional<Scorer> scorer_, held_out_scorer_;
  proto::Evaluate evaluate_;
};

// Runs `body` on every rank of a layout of threads, each with a run of its own that is closed afterwards.
absl::Status OnRanks(const Layout& layout, const TinyRunOptions& options,
                     const std::function<absl::Status(TinyRun&, int rank)>& body);

// The value of a report's key; fails the test where there is none.
double ValueOf(const StepReport& report, const std::string& key);
// `steps` steps of a source; the reports.
absl::StatusOr<std::vector<StepReport>> RunSteps(StepSource& source, int64_t steps);

}  // namespace moebius
