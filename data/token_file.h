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
  static absl::StatusOr<std::unique_ptr<TokenFileWriter>> Create(const std::string& path, int64_t vocab_size);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  // One document, its end-of-document token included by the caller. Tokens are CHECKed to be below
  // vocab_size.
  absl::Status AddDocument(std::span<const int32_t> tokens);
  // Writes what AddDocument gathered; info.vocab_size must be that of Create.
  absl::Status Finish(const TokenFileInfo& info);

  int64_t num_tokens() const;
  int64_t num_documents() const;

 private:
  struct State;
  explicit TokenFileWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// An open token file. Reading is thread-safe: the token array is mapped (or, when its HDF5 layout does not
// allow that, read into memory at Open).
class TokenFile {
 public:
  // Checks everything before it returns: against the hash in manifest.json beside the file, when that lists
  // it (content up to kMaxHashedBytes, else only the size), types, ranges, order of document_starts, tokens
  // below vocab_size. MissingError (66); DamagedError (65) naming file and field.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(const std::string& path);
  static constexpr int64_t kMaxHashedBytes = int64_t{256} << 20;
  ~TokenFile();
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  int64_t num_tokens() const;
  std::span<const int64_t> document_starts() const;
  const TokenFileInfo& info() const;
  const std::string& path() const;

  // Tokens [begin, begin + out.size()).
  void Read(int64_t begin, std::span<int32_t> out) const;

 private:
  struct State;
  explicit TokenFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace moebius
