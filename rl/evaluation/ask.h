// Asking a model: texts that it writes, and how probable it finds given ones.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/generate/generate.h"
#include "rl/evaluation/language_model.h"

namespace moebius {

struct AnswerRequest {
  std::vector<int32_t> prompt;  // not empty
  int64_t max_new = 256;
  uint64_t sequence = 0;  // tells apart the random numbers of requests; below 2^32
};

struct ModelAnswer {
  std::string text;       // up to the end of the answer or the first stop text; special tokens are kept
  int64_t tokens = 0;     // drawn, the end included
  bool finished = false;  // false: cut off at max_new
};

struct AnswerOptions {
  SamplingParams sampling = {};
  std::vector<std::string> stops = {};      // texts that end an answer
  int64_t max_batch = 32;                   // answers written at once
  std::function<void()> on_done = nullptr;  // an answer is finished
};

// In the order of the requests. Errors of Generate.
absl::StatusOr<std::vector<ModelAnswer>> WriteAnswers(LanguageModel& model,
                                                      const std::vector<AnswerRequest>& requests,
                                                      const AnswerOptions& options);

// The prompt and an option after it, tokenised as one text and split where the prompt's own tokens end.
struct OptionTokens {
  std::vector<int32_t> before;  // not empty
  std::vector<int32_t> option;  // not empty
};
absl::StatusOr<OptionTokens> SplitOption(const LanguageModel& model, const std::string& prompt,
                                         const std::string& option);

// The sum of natural log-probabilities of each option's tokens. What options share is computed once. Each
// must fit into the model's positions: CHECK.
std::vector<double> OptionLogProbs(LanguageModel& model, const std::vector<OptionTokens>& options);

}  // namespace moebius
