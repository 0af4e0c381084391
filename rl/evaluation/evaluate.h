// A model on a benchmark: prompts, answers, verdicts, figures.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "core/base/status.h"
#include "core/generate/sampler.h"
#include "rl/evaluation/benchmark.h"
#include "rl/evaluation/language_model.h"
#include "rl/evaluation/tally.h"

namespace moebius {

struct EvaluateOptions {
  SamplingParams sampling = {.temperature = 0};
  int64_t samples = 1;                  // answers a question; where options are compared it is always 1
  std::optional<int64_t> max_new = {};  // absent: the benchmark's
  int64_t max_batch = 32;               // answers written at once
};

// One answer of the model, or one comparison of options.
struct Sample {
  const Question& question;
  int64_t index = 0;                  // among the samples of the question
  std::string prompt = {};            // as the model got it, special tokens included
  std::string answer = {};            // of a comparison: the option taken
  std::vector<double> logprobs = {};  // of a comparison: of each option, summed over its tokens
  Graded graded = {};
  int64_t tokens = 0;  // written
  bool cut = false;    // ended by max_new
};

struct EvaluationEvents {
  std::function<absl::Status(const Sample&)> on_sample = nullptr;  // in order; its error ends the evaluation
  std::function<void(int64_t done, int64_t total)> on_progress = nullptr;  // answers
};

struct Evaluation {
  Tally tally;
  int64_t cut = 0;          // samples that ended at max_new
  int64_t too_long = 0;     // samples whose prompt does not fit the model even without examples: wrong
  int64_t fewer_shots = 0;  // questions that were asked with fewer examples, to fit
  int64_t max_new = 0;      // asked for; less where the model has fewer positions left
  int64_t tokens = 0;       // written
  double seconds = 0;
};

// Examples are dropped, the last first, until the prompt leaves room for max_new tokens or a quarter of the
// model's positions. Random numbers depend on seed, question and sample alone. UsageError when no prompt
// fits.
absl::StatusOr<Evaluation> Evaluate(LanguageModel& model, const Benchmark& benchmark,
                                    const EvaluateOptions& options, const EvaluationEvents& events);

// What is put before the model with the first `shots` examples. A chat has the examples as earlier turns.
std::string BenchmarkText(const Benchmark& benchmark, const Question& question, int64_t shots);
std::vector<ChatMessage> BenchmarkMessages(const Benchmark& benchmark, const Question& question,
                                           int64_t shots);

}  // namespace moebius
