#include "data/encode_documents.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "core/base/status.h"
#include "core/io/file.h"
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

absl::StatusOr<EncodedDocuments> EncodeDocuments(const DocumentSet& set, const Tokenizer& tokenizer,
                                                 const EncodeDocumentsOptions& options) {
  std::optional<FimTokens> fim;
  if (options.fim_rate > 0) {
    ASSIGN_OR_RETURN(fim, FindFimTokens(tokenizer, "tokenizer"));
  }
  const std::optional<int32_t> end_of_document = FindEndOfDocument(tokenizer);
  std::unique_ptr<TokenFileWriter> writers[2];
  const char* const names[2] = {"train.h5", "val.h5"};
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    const auto s = static_cast<size_t>(split);
    if (set.documents(split) == 0) continue;
    ASSIGN_OR_RETURN(writers[s],
                     TokenFileWriter::Create(JoinPath(options.folder, names[s]), tokenizer.vocab_size()));
  }
  std::vector<int32_t> ids;
  RETURN_IF_ERROR(set.ForEach([&](const Document& document, const DocumentSet::Place& place) {
    ids.clear();
    if (fim && place.split == Split::kTrain) {
      EncodeWithFim(tokenizer, document.text, *fim, options.seed, place.index, options.fim_rate, &ids);
    } else {
      tokenizer.Encode(document.text, &ids, kAsText);
    }
    if (end_of_document) ids.push_back(*end_of_document);
    return writers[static_cast<size_t>(place.split)]->AddDocument(ids);
  }));
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
