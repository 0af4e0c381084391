// Trains a byte-level BPE tokenizer: counts the pieces of text, then merges the most frequent pair again and
// again. Gives the vocabulary and merges that Hugging Face's BpeTrainer gives on the same documents.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/merge_learner.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/word_counts.h"

namespace moebius {

// Begin, end and padding of DeepSeek-V3: ids 0, 1, 2.
std::vector<std::string> DefaultSpecialTokens();

struct BpeTrainerOptions {
  int32_t vocab_size = 16384;  // special tokens and the 256 bytes included
  PreTokenizerKind pre_tokenizer = PreTokenizerKind::kDeepSeekV3;
  std::vector<std::string> special_tokens = DefaultSpecialTokens();  // ids from 0 in this order
  int64_t min_count = 1;  // a pair that occurs less often is not merged
  int threads = 1;
};

class BpeTrainer {
 public:
  // UsageError when the vocabulary cannot hold special tokens and bytes, or a special token is empty, given
  // twice or not UTF-8.
  static absl::StatusOr<BpeTrainer> Create(const BpeTrainerOptions& options);

  // Counts the pieces of whole documents, each split on its own, in all threads. The result depends neither
  // on their order nor on the number of threads nor on how documents are divided among calls. Texts of more
  // than 2 MB are cut where that changes no piece (PreTokenizer::SafeCut).
  void AddDocuments(std::span<const std::string_view> documents);
  int64_t bytes() const { return bytes_; }

  // Ids: special tokens, then the bytes in the order of their characters in GPT-2's alphabet, then one for
  // each merge. The pair with the highest count is merged; on a tie the one with the smaller left id, then
  // the smaller right id. Ends early, with a smaller vocabulary, when no pair has min_count. DamagedError
  // when no text was added.
  absl::StatusOr<Tokenizer> Train();
  // For people: why `tokenizer`, which Train gave, is smaller than asked for; "" when it is not.
  std::string Shortfall(const Tokenizer& tokenizer) const;

 private:
  explicit BpeTrainer(const BpeTrainerOptions& options)
      : options_(options), pre_tokenizer_(options.pre_tokenizer), counts_(options.threads) {}
  BpeTrainerOptions options_;
  PreTokenizer pre_tokenizer_;
  std::vector<WordCounts> counts_;  // one for each thread
  int64_t bytes_ = 0;
};

}  // namespace moebius
