#include "data/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/utf8_text.h"

namespace moebius {
namespace {

constexpr size_t kChunkBytes = size_t{2} << 20;

void CountPieces(const PreTokenizer& pre_tokenizer, std::string_view text, WordCounts* counts) {
  std::vector<size_t> ends;
  const char* const text_end = text.data() + text.size();
  for (size_t begin = 0; begin < text.size();) {
    ends.clear();
    pre_tokenizer.Split(text, begin, 512, &ends);
    for (const size_t end : ends) {
      counts->Add(text.substr(begin, end - begin), text_end);
      begin = end;
    }
  }
}

}  // namespace

std::vector<std::string> DefaultSpecialTokens() {
  return {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"};
}

absl::StatusOr<BpeTrainer> BpeTrainer::Create(const BpeTrainerOptions& options) {
  CHECK_GT(options.threads, 0);
  std::set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    if (token.empty() || !IsUtf8(token) || !seen.insert(token).second) {
      return UsageError(Concat("special token \"", Printable(token),
                               "\" is empty, not UTF-8 or given twice; ",
                               "a vocabulary needs distinct names; change it"));
    }
  }
  const int64_t least = 256 + static_cast<int64_t>(options.special_tokens.size());
  if (options.vocab_size < least || options.vocab_size > kMaxTokenId + 1) {
    return UsageError(Concat("vocabulary size ", options.vocab_size, " is not ", least, " to ",
                             kMaxTokenId + 1, "; it holds 256 bytes and ", options.special_tokens.size(),
                             " special tokens before any merge; choose another size"));
  }
  return BpeTrainer(options);
}

void BpeTrainer::AddDocuments(std::span<const std::string_view> documents) {
  std::vector<std::string_view> chunks;
  for (std::string_view document : documents) {
    bytes_ += static_cast<int64_t>(document.size());
    while (document.size() > kChunkBytes && options_.pre_tokenizer != PreTokenizerKind::kNone) {
      const size_t cut = PreTokenizer::SafeCut(document, kChunkBytes);
      chunks.push_back(document.substr(0, cut));
      document.remove_prefix(cut);
    }
    if (!document.empty()) chunks.push_back(document);
  }
  std::atomic<size_t> next = 0;
  const auto work = [&](WordCounts* counts) {
    for (size_t i; (i = next.fetch_add(1)) < chunks.size();) CountPieces(pre_tokenizer_, chunks[i], counts);
  };
  std::vector<std::thread> threads;
  for (size_t t = 1; t < std::min(counts_.size(), chunks.size()); ++t)
    threads.emplace_back(work, &counts_[t]);
  work(&counts_[0]);
  for (std::thread& thread : threads) thread.join();
}

absl::StatusOr<Tokenizer> BpeTrainer::Train() {
  if (bytes_ == 0)
    return DamagedError("no text to train a tokenizer on; the input is empty; give other files");
  for (size_t t = 1; t < counts_.size(); ++t) {
    counts_[0].Add(counts_[t]);
    counts_[t] = WordCounts();
  }
  const ByteAlphabet alphabet;
  TokenizerSpec spec;
  spec.pre_tokenizer = options_.pre_tokenizer;
  std::vector<std::string> tokens = options_.special_tokens;
  std::vector<int32_t> byte_ids(256);
  for (const unsigned char byte : alphabet.BytesInCharacterOrder()) {
    // A special token that is one character of the alphabet is that byte, as in HF.
    const auto same = std::find(tokens.begin(), tokens.end(), alphabet.Character(byte));
    byte_ids[byte] = static_cast<int32_t>(same - tokens.begin());
    if (same == tokens.end()) tokens.push_back(alphabet.Character(byte));
  }
  for (size_t id = 0; id < options_.special_tokens.size(); ++id) {
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = options_.special_tokens[id];
    token.special = true;
    spec.added_tokens.push_back(token);
  }
  MergeLearner learner(counts_[0], std::move(tokens), byte_ids);
  counts_[0] = WordCounts();
  learner.Learn(options_.vocab_size, options_.min_count);
  spec.vocab = learner.tokens();
  for (const MergeLearner::Merge& merge : learner.merges()) {
    spec.merges.push_back({merge.left, merge.right, merge.result});
  }
  return Tokenizer::FromJson(WriteTokenizerJson(spec), "trained tokenizer");
}

std::string BpeTrainer::Shortfall(const Tokenizer& tokenizer) const {
  if (tokenizer.vocab_size() >= options_.vocab_size) return "";
  return Concat("fewer than the ", WithCommas(options_.vocab_size),
                " asked for: no pair of tokens is left that occurs ",
                options_.min_count == 1 ? "at all" : Concat(WithCommas(options_.min_count), " times"),
                "; give more text");
}

}  // namespace moebius
