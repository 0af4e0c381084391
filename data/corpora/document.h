// A document is the unit of held-out splits, deduplication and token files; a DocumentReader is a source of
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace moebius {

inline constexpr int64_t kMaxDocumentBytes = (int64_t{1} << 31) - 1;  // that a tokenizer takes at once

struct Document {
  std::string name;    // "austen/persuasion": source, "/", what the source calls it; unique within the source
  std::string text;    // bytes as the source has them; MakeValidUtf8 has not been applied
  std::string origin;  // where it lies, for messages: "PATH" or "PATH:LINE"
  int64_t replaced = 0;  // bytes or sequences that the reader itself has replaced (InvalidText)
};

// Yields documents one at a time, in an order that depends on the content of the source only (not on the
// order of directory entries), so that reading twice gives the same list.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // True with the next document in *document, false at the end. After an error the reader is used up.
  virtual absl::StatusOr<bool> Next(Document* document) = 0;
};

// A reader from a function with the meaning of Next.
class FunctionReader : public DocumentReader {
 public:
  using Function = std::function<absl::StatusOr<bool>(Document*)>;
  explicit FunctionReader(Function next) : next_(std::move(next)) {}
  absl::StatusOr<bool> Next(Document* document) override { return next_(document); }

 private:
  Function next_;
};

// OK where `text`, which begins at byte `offset` of `origin`, is UTF-8 text (well-formed, no NUL byte), else
// an error (65) naming origin and byte.
absl::Status CheckText(std::string_view text, std::string_view origin, int64_t offset = 0);

enum class InvalidText { kRefuse, kReplace };

// Checks that document->text is UTF-8 text, as CheckText does. With kRefuse anything else is an error
// (65) naming origin and byte; with kReplace every maximal bad run becomes one U+FFFD. Returns the runs
// replaced.
absl::StatusOr<int64_t> MakeValidUtf8(InvalidText policy, Document* document);

}  // namespace moebius
