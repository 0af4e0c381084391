// A token file as the loader sees it: the file itself, or the file with a share of its documents rearranged
// for fill in the middle (fim.h). Positions count the rearranged tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "data/fim.h"
#include "data/token_file.h"

namespace moebius {

struct FimTokens {
  int32_t begin = 0, hole = 0, end = 0;
};

class TokenView {
 public:
  explicit TokenView(std::unique_ptr<TokenFile> file);
  // Cuts fall between tokens; a last token equal to `end_of_document` stays last. Document d of the file is
  // rearranged or not by (seed, d), the same way in every epoch.
  static absl::StatusOr<TokenView> WithFim(std::unique_ptr<TokenFile> file, double rate, uint64_t seed,
                                           FimTokens tokens, std::optional<int32_t> end_of_document);

  const TokenFile& file() const { return *file_; }
  int64_t num_tokens() const { return num_tokens_; }
  std::span<const int64_t> document_starts() const { return fim_ ? fim_->starts : file_->document_starts(); }

  // Tokens [begin, begin + out.size()).
  absl::Status Read(int64_t begin, std::span<int32_t> out) const;

 private:
  struct Fim {
    double rate;
    uint64_t seed;
    FimTokens tokens;
    std::optional<int32_t> end_of_document;
    std::vector<int64_t> starts;
  };
  // Tokens [begin, begin + out.size()) of document d, counted from its own start.
  absl::Status ReadDocument(int64_t d, int64_t begin, std::span<int32_t> out) const;
  int64_t FileLength(int64_t d) const;                  // tokens of document d in the file
  absl::StatusOr<int64_t> BodyLength(int64_t d) const;  // without its end-of-document token

  std::unique_ptr<TokenFile> file_;
  std::optional<Fim> fim_;
  int64_t num_tokens_ = 0;
};

}  // namespace moebius
