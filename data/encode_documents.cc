#include "data/encode_documents.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/status.h"
#include "core/io/file.h"
#include "data/document_batch.h"
#include "data/fim.h"
#include "data/special_tokens.h"
#include "data/token_file.h"

namespace moebius {
namespace {

constexpr EncodeOptions kAsText{.parse_special = false, .add_special = false};

bool StartsCharacter(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

// The byte at which character `index` begins; text.size() for one past the last.
size_t ByteOfCharacter(std::string_view text, int64_t index) {
  size_t i = 0;
  for (; i < text.size(); ++i) {
    if (StartsCharacter(text[i]) && index-- == 0) break;
  }
  return i;
}

}  // namespace

void EncodeWithFim(const Tokenizer& tokenizer, std::string_view text, const FimTokens& fim, uint64_t seed,
                   int64_t document_index, double rate, std::vector<int32_t>* ids) {
  const auto characters = static_cast<int64_t>(std::count_if(text.begin(), text.end(), StartsCharacter));
  const auto cuts = ChooseFimCuts(seed, document_index, rate, characters);
  if (!cuts) return tokenizer.Encode(text, ids, kAsText);
  const size_t begin = ByteOfCharacter(text, cuts->middle_begin),
               end = ByteOfCharacter(text, cuts->middle_end);
  ids->push_back(fim.begin);
  tokenizer.Encode(text.substr(0, begin), ids, kAsText);
  ids->push_back(fim.hole);
  tokenizer.Encode(text.substr(end), ids, kAsText);
  ids->push_back(fim.end);
  tokenizer.Encode(text.substr(begin, end - begin), ids, kAsText);
}

namespace {

// Encodes batches of documents in threads and writes them in order.
class BatchEncoder {
 public:
  BatchEncoder(const Tokenizer& tokenizer, const EncodeDocumentsOptions& options,
               std::optional<FimTokens> fim, std::unique_ptr<TokenFileWriter>* writers)
      : tokenizer_(tokenizer),
        options_(options),
        fim_(fim),
        end_of_document_(FindEndOfDocument(tokenizer)),
        writers_(writers) {}

  absl::Status Add(const Document& document, const DocumentSet::Place& place) {
    places_.push_back(place);
    return batch_.Add(document.text) ? Flush() : absl::OkStatus();
  }
  absl::Status Flush() {
    ids_.resize(std::max(ids_.size(), places_.size()));
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t i = next++; i < places_.size(); i = next++) Encode(batch_.texts[i], places_[i], &ids_[i]);
    };
    std::vector<std::thread> threads;
    for (int t = 1; t < options_.threads; ++t) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < places_.size(); ++i) {
      RETURN_IF_ERROR(writers_[static_cast<size_t>(places_[i].split)]->AddDocument(ids_[i]));
    }
    batch_.Clear();
    places_.clear();
    return absl::OkStatus();
  }

 private:
  void Encode(std::string_view text, const DocumentSet::Place& place, std::vector<int32_t>* ids) const {
    ids->clear();
    if (fim_ && place.split == Split::kTrain) {
      EncodeWithFim(tokenizer_, text, *fim_, options_.seed, place.index, options_.fim_rate, ids);
    } else {
      tokenizer_.Encode(text, ids, kAsText);
    }
    if (end_of_document_) ids->push_back(*end_of_document_);
  }

  const Tokenizer& tokenizer_;
  const EncodeDocumentsOptions& options_;
  const std::optional<FimTokens> fim_;
  const std::optional<int32_t> end_of_document_;
  std::unique_ptr<TokenFileWriter>* const writers_;  // by split
  DocumentBatch batch_;
  std::vector<DocumentSet::Place> places_;
  std::vector<std::vector<int32_t>> ids_;
};

}  // namespace

absl::StatusOr<EncodedDocuments> EncodeDocuments(const DocumentSet& set, const Tokenizer& tokenizer,
                                                 const EncodeDocumentsOptions& options) {
  std::optional<FimTokens> fim;
  if (options.fim_rate > 0) {
    ASSIGN_OR_RETURN(fim, FindFimTokens(tokenizer, "tokenizer"));
  }
  std::unique_ptr<TokenFileWriter> writers[2];
  const char* const names[2] = {"train.h5", "val.h5"};
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    const auto s = static_cast<size_t>(split);
    if (set.documents(split) == 0) continue;
    ASSIGN_OR_RETURN(writers[s],
                     TokenFileWriter::Create(JoinPath(options.folder, names[s]), tokenizer.vocab_size()));
  }
  BatchEncoder encoder(tokenizer, options, fim, writers);
  RETURN_IF_ERROR(set.ForEach([&](const Document& document, const DocumentSet::Place& place) {
    return encoder.Add(document, place);
  }));
  RETURN_IF_ERROR(encoder.Flush());
  EncodedDocuments encoded;
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    const auto s = static_cast<size_t>(split);
    if (writers[s] == nullptr) continue;
    EncodedSplit& part = split == Split::kTrain ? encoded.train : encoded.held_out;
    part.tokens = writers[s]->num_tokens();
    ASSIGN_OR_RETURN(part.hash, writers[s]->Finish({.vocab_size = tokenizer.vocab_size(),
                                                    .bytes = set.bytes(split),
                                                    .tokenizer_sha256 = Sha256Hex(tokenizer.json()),
                                                    .tokenizer_json = tokenizer.json()}));
  }
  return encoded;
}

}  // namespace moebius
