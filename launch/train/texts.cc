#include "launch/train/texts.h"

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

}  // namespace moebius
