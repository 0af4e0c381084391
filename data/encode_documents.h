// The documents of a set as token files: encoded, ended, and rearranged for fill in the middle where that is
// asked for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/hash.h"
#include "data/document_set.h"
#include "data/token_view.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

struct EncodeDocumentsOptions {
  std::string folder;             // gets the files
  bool separate_sources = false;  // train-SOURCE.h5 for each source rather than one train.h5
  uint64_t seed = 1;
  double fim_rate = 0;  // of training documents
  int threads = 1;      // the result is the same for any number
};

struct EncodedFile {
  std::string name;  // train.h5, train-SOURCE.h5 or val.h5
  Split split = Split::kTrain;
  FileHash hash;
  int64_t documents = 0, bytes = 0, tokens = 0;  // bytes: of text
};

// Makes the files of training documents, in the order of the sources, then val.h5 when documents are held
// out; a file without documents is not made. Text is encoded as text: special tokens that stand in it are not
// special. Every document ends with the tokenizer's end-of-document token, where it has one. UsageError (64)
// for fim_rate > 0 without fill-in-the-middle tokens.
absl::StatusOr<std::vector<EncodedFile>> EncodeDocuments(const DocumentSet& set, const Tokenizer& tokenizer,
                                                         const EncodeDocumentsOptions& options);

// Appends begin prefix hole suffix end middle, cut between characters of the UTF-8 `text` by ChooseFimCuts;
// or just the text, when that chooses no cuts.
void EncodeWithFim(const Tokenizer& tokenizer, std::string_view text, const FimTokens& fim, uint64_t seed,
                   int64_t document_index, double rate, std::vector<int32_t>* ids);

}  // namespace moebius
