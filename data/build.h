// `moebius data build`: text to tokenizer and token files, with a manifest that says what went in. The folder
// appears whole or not at all; the same recipe over the same text is recognised and nothing is done.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace moebius {

namespace proto {
class DataBuild;
}

struct BuildReport {
  bool up_to_date = false;  // the folder already held exactly this
  std::string out;
  int64_t train_documents = 0, train_bytes = 0, train_tokens = 0;
  int64_t held_out_documents = 0, held_out_bytes = 0, held_out_tokens = 0;
  int64_t vocab_size = 0;
};

// Makes OUT/train.h5 (with separate_sources train-NAME.h5 for each source), val.h5 when documents are held
// out, tokenizer.json and manifest.json. `say` gets a line for every step, with sizes. Errors: UsageError
// (64) naming the recipe's field; those of readers and tokenizer; CannotWriteError (73), also when OUT holds
// files that a data build did not make.
absl::StatusOr<BuildReport> BuildData(const proto::DataBuild& recipe, int threads,
                                      const std::function<void(const std::string&)>& say);

}  // namespace moebius
