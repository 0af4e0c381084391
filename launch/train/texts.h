// What a run on texts reads: its data, and the validation text that judges it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "data/loader.h"
#include "launch/train/judge.h"
#include "launch/train/tokenizer_files.h"

namespace moebius {

namespace proto {
class Recipe;
}  // namespace proto

struct TrainingTexts {
  std::unique_ptr<Loader> loader;
  double bits_per_nat = 0;  // of the training text; 0: not known
  std::optional<Judge> judge;
  TokenizerFiles tokenizer;
};

// UsageError where texts, or the model folder that the run begins from, have different tokenizers.
absl::StatusOr<TrainingTexts> OpenTexts(const proto::Recipe& recipe, const ModelConfig& config);

// How often a run of so many sequences reads its texts, and what it never reads: a line for each part.
std::vector<std::string> DescribeTexts(const Loader& loader, double sequences);

}  // namespace moebius
