#include "launch/train/texts.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/base/strings.h"
#include "launch/recipe.pb.h"
#include "launch/train/bits_per_nat.h"
#include "launch/train/settings.h"

namespace moebius {

absl::StatusOr<TrainingTexts> OpenTexts(const proto::Recipe& recipe, const ModelConfig& config) {
  TrainingTexts texts;
  ASSIGN_OR_RETURN(const LoaderOptions options, LoaderOptionsOf(recipe, config));
  ASSIGN_OR_RETURN(texts.loader, Loader::Open(options));
  texts.bits_per_nat = BitsPerNat(*texts.loader, options);
  const TokenFile& file = texts.loader->file(0);
  if (const std::string& path = recipe.data().validation(); !path.empty()) {
    const int64_t max_tokens = recipe.validate().max_tokens();
    ASSIGN_OR_RETURN(Validation validation,
                     Validation::Open(path, recipe.batch().sequence_length(), config.vocab_size, max_tokens,
                                      recipe.data().document_mask()));
    texts.judge.emplace(std::move(validation), max_tokens);
    if (texts.judge->file().info().tokenizer_sha256 != file.info().tokenizer_sha256) {
      return UsageError(Concat("data.validation: ", path, " was made with another tokenizer than ",
                               file.path(),
                               "; its ids are other text; build both in one run of moebius data build"));
    }
  }
  const std::string from = recipe.init().random() ? "" : recipe.init().from();
  RETURN_IF_ERROR(CheckSameTokenizer(file.info().tokenizer_json, file.path(), from));
  ASSIGN_OR_RETURN(texts.tokenizer, FindTokenizer(*texts.loader, from));
  return texts;
}

std::vector<std::string> DescribeTexts(const Loader& loader, double sequences) {
  constexpr double kWorthAWarning = 0.05;
  std::vector<std::string> lines;
  for (int64_t k = 0; k < loader.num_parts(); ++k) {
    const TokenFile& file = loader.file(k);
    char epochs[32];
    std::snprintf(epochs, sizeof epochs, "%.3g",
                  loader.epochs(k, static_cast<int64_t>(std::min(sequences, 1e15))));
    std::string line = Concat(file.path(), ": ", WithCommas(loader.sequences(k)), " sequences of ",
                              loader.sequence_length(), ", ", epochs, " epochs in this run");
    const int64_t unused = loader.unused_tokens(k);
    if (static_cast<double>(unused) > kWorthAWarning * static_cast<double>(file.num_tokens())) {
      line += Concat("; warning: ", WithCommas(unused), " of its ", WithCommas(file.num_tokens()),
                     " tokens are in none of them; shorter sequences leave less over");
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace moebius
