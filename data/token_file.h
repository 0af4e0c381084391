// Token files: the tokens of a corpus, once, with where its documents begin (contract: "Token file (HDF5)").
// `/tokens` 1-D uint16 or uint32, `/document_starts` 1-D int64, `/tokenizer_json` uint8, and root attributes
// format_version, vocab_size, tokenizer_sha256 and bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file.h"
#include "core/io/hash.h"
#include "core/io/hdf5_file.h"

namespace moebius {

inline constexpr int64_t kTokenFileVersion = 1;

struct TokenFileInfo {
  int64_t vocab_size = 0;        // every token is below it
  int64_t bytes = 0;             // of the text that the tokens stand for
  std::string tokenizer_sha256;  // of the tokenizer.json it was made with, hexadecimal; may be empty
  std::string tokenizer_json;    // that file itself; empty when the token file does not carry it
};

// Writes documents as they come; memory does not grow with the file. The file appears whole, at Finish.
class TokenFileWriter {
 public:
  // vocab_size decides the type of /tokens: uint16 up to 65,536.
  static absl::StatusOr<std::unique_ptr<TokenFileWriter>> Create(const std::string& path, int64_t vocab_size);
  ~TokenFileWriter();

  // One document, its end-of-document token included by the caller; an empty one is left out. Tokens are
  // CHECKed to be in [0, vocab_size).
  absl::Status AddDocument(std::span<const int32_t> tokens);
  // Writes the rest and publishes the file; info.vocab_size must be that of Create. A file without tokens is
  // a DamagedError.
  absl::StatusOr<FileHash> Finish(const TokenFileInfo& info);

  int64_t num_tokens() const { return num_tokens_; }

 private:
  TokenFileWriter(std::string path, int64_t vocab_size, std::unique_ptr<Hdf5Writer> writer);
  std::string path_;
  int64_t vocab_size_;
  std::unique_ptr<Hdf5Writer> writer_;
  int64_t num_tokens_ = 0, num_documents_ = 0;
  std::vector<uint16_t> narrow_;
  std::vector<uint32_t> wide_;
};

// An open token file. Reading is thread-safe: the token array is mapped, or, where its HDF5 layout does not
// allow that (compressed by somebody else), read into memory at Open.
class TokenFile {
 public:
  // Checks before it returns: size and (up to kMaxCheckedBytes) hash against manifest.json beside the file,
  // when that lists it; types, ranges, order of document_starts; tokens below vocab_size (up to
  // kMaxCheckedBytes here, of larger files in Read). MissingError (66); DamagedError (65) naming file and
  // field.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(const std::string& path);
  static constexpr int64_t kMaxCheckedBytes = int64_t{256} << 20;

  int64_t num_tokens() const { return num_tokens_; }
  std::span<const int64_t> document_starts() const { return document_starts_; }
  const TokenFileInfo& info() const { return info_; }
  const std::string& path() const { return path_; }
  // Of the file, by the manifest.json beside it; "" where that lists none.
  const std::string& listed_sha256() const { return listed_sha256_; }

  // Tokens [begin, begin + out.size()); outside the file is a bug. DamagedError for a token beyond the
  // vocabulary.
  absl::Status Read(int64_t begin, std::span<int32_t> out) const;

 private:
  // Tokens [first, first + count) at `data`, of token_bytes_ each.
  struct Stretch {
    int64_t first = 0, count = 0;
    const std::byte* data = nullptr;
  };
  TokenFile() = default;
  absl::Status ReadAttributes(const Hdf5File& file);
  absl::Status ReadDocumentStarts(const Hdf5File& file);
  absl::Status MapTokens(const Hdf5File& file);
  absl::Status CheckTokens() const;

  std::string path_, listed_sha256_;
  TokenFileInfo info_;
  int64_t num_tokens_ = 0;
  int64_t token_bytes_ = 2;  // 2 or 4
  std::vector<int64_t> document_starts_;
  MappedFile mapped_;
  std::vector<std::byte> memory_;  // instead of mapped_
  std::vector<Stretch> stretches_;
};

}  // namespace moebius
