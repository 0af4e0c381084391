#include "data/encode_documents.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
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

// A file in the making, with what went into it.
struct Output {
  EncodedFile file;
  std::unique_ptr<TokenFileWriter> writer;
};

// The file that each document goes to. Made when its first document comes.
class Outputs {
 public:
  Outputs(const DocumentSet& set, const EncodeDocumentsOptions& options, int64_t vocab_size)
      : options_(options), vocab_size_(vocab_size) {
    for (const SourceOptions& source : set.options().sources) {
      if (!options.separate_sources && !outputs_.empty()) break;
      AddOutput(options.separate_sources ? Concat("train-", source.name, ".h5") : "train.h5", Split::kTrain);
    }
    AddOutput("val.h5", Split::kHeldOut);
  }

  absl::Status Add(const DocumentSet::Place& place, int64_t bytes, std::span<const int32_t> ids) {
    Output& output = place.split == Split::kHeldOut ? outputs_.back()
                                                    : outputs_[options_.separate_sources ? place.source : 0];
    if (output.writer == nullptr) {
      ASSIGN_OR_RETURN(output.writer,
                       TokenFileWriter::Create(JoinPath(options_.folder, output.file.name), vocab_size_));
    }
    ++output.file.documents;
    output.file.bytes += bytes;
    return output.writer->AddDocument(ids);
  }
  absl::StatusOr<std::vector<EncodedFile>> Finish(const std::string& tokenizer_json) {
    std::vector<EncodedFile> files;
    for (Output& output : outputs_) {
      if (output.writer == nullptr) continue;
      output.file.tokens = output.writer->num_tokens();
      ASSIGN_OR_RETURN(output.file.hash, output.writer->Finish({.vocab_size = vocab_size_,
                                                                .bytes = output.file.bytes,
                                                                .tokenizer_sha256 = Sha256Hex(tokenizer_json),
                                                                .tokenizer_json = tokenizer_json}));
      files.push_back(output.file);
    }
    return files;
  }

 private:
  void AddOutput(const std::string& name, Split split) {
    Output output;
    output.file.name = name;
    output.file.split = split;
    outputs_.push_back(std::move(output));
  }

  const EncodeDocumentsOptions& options_;
  const int64_t vocab_size_;
  std::vector<Output> outputs_;  // val.h5 last
};

// Encodes batches of documents in threads and writes them in order.
class BatchEncoder {
 public:
  BatchEncoder(const Tokenizer& tokenizer, const EncodeDocumentsOptions& options,
               std::optional<FimTokens> fim, Outputs* outputs)
      : tokenizer_(tokenizer),
        options_(options),
        fim_(fim),
        end_of_document_(FindEndOfDocument(tokenizer)),
        outputs_(outputs) {}

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
      RETURN_IF_ERROR(outputs_->Add(places_[i], static_cast<int64_t>(batch_.texts[i].size()), ids_[i]));
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
  Outputs* const outputs_;
  DocumentBatch batch_;
  std::vector<DocumentSet::Place> places_;
  std::vector<std::vector<int32_t>> ids_;
};

}  // namespace

absl::StatusOr<std::vector<EncodedFile>> EncodeDocuments(const DocumentSet& set, const Tokenizer& tokenizer,
                                                         const EncodeDocumentsOptions& options) {
  std::optional<FimTokens> fim;
  if (options.fim_rate > 0) {
    ASSIGN_OR_RETURN(fim, FindFimTokens(tokenizer, "tokenizer"));
  }
  Outputs outputs(set, options, tokenizer.vocab_size());
  BatchEncoder encoder(tokenizer, options, fim, &outputs);
  RETURN_IF_ERROR(set.ForEach([&](const Document& document, const DocumentSet::Place& place) -> absl::Status {
    RETURN_IF_ERROR(
        Annotate(tokenizer.CheckNothingIsLost(document.text, {.parse_special = false}), document.origin));
    return encoder.Add(document, place);
  }));
  RETURN_IF_ERROR(encoder.Flush());
  return outputs.Finish(tokenizer.json());
}

}  // namespace moebius
