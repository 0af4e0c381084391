// Samples during training: the recipe's prompts continued by the current weights.
#pragma once

#include <memory>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "launch/metrics.h"
#include "launch/recipe.h"
#include "launch/train/setup.h"
#include "launch/train/tokenizer_files.h"

namespace moebius {

class PromptSampler {
 public:
  // UsageError when prompts are asked for and the token file carries no tokenizer. `training` must outlive
  // this.
  static absl::StatusOr<std::unique_ptr<PromptSampler>> Make(const proto::Recipe& recipe,
                                                             const Training& training,
                                                             const TokenizerFiles& files);
  // Collective. One row a prompt on rank 0, none on the others. The same weights, seed and step give the same
  // texts.
  absl::StatusOr<std::vector<SampleRow>> Run(int64_t step) const;

 private:
  PromptSampler(const proto::Recipe& recipe, const Training& training, Tokenizer tokenizer)
      : recipe_(recipe), training_(training), tokenizer_(std::move(tokenizer)) {}

  const proto::Recipe& recipe_;
  const Training& training_;
  Tokenizer tokenizer_;
};

}  // namespace moebius
