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
  std::string folder;  // gets train.h5, and val.h5 when documents are held out
  uint64_t seed = 1;
  double fim_rate = 0;  // of training documents
  int threads = 1;      // the result is the same for any number
};

struct EncodedSplit {
  FileHash hash;
  int64_t tokens = 0;
};
struct EncodedDocuments {
  EncodedSplit train, held_out;
};

// Text is encoded as text: special tokens that stand in it are not special. Every document ends with the
// tokenizer's end-of-document token, where it has one. UsageError (64) for fim_rate > 0 without
// fill-in-the-middle tokens.
absl::StatusOr<EncodedDocuments> EncodeDocuments(const DocumentSet& set, const Tokenizer& tokenizer,
                                                 const EncodeDocumentsOptions& options);

// Appends begin prefix hole suffix end middle, cut between characters of the UTF-8 `text` by ChooseFimCuts;
// or just the text, when that chooses no cuts.
void EncodeWithFim(const Tokenizer& tokenizer, std::string_view text, const FimTokens& fim, uint64_t seed,
                   int64_t document_index, double rate, std::vector<int32_t>* ids);

}  // namespace moebius
