// The documents of a data build: read once to decide which are kept and which are held out, then read again,
// one at a time, to train the tokenizer and to encode. So memory holds some 64 bytes a document and never the
// text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/hash.h"
#include "data/corpora/document.h"

namespace moebius {

struct SourceOptions {
  std::string name;  // prefix of its documents' names; unique
  std::string
      corpus;  // exactly one of corpus (a name of corpus.h), text and jsonl (a file, folder or glob) is set
  std::string text;
  std::string jsonl;
  std::string text_field = "text";
  std::vector<std::string> roots;  // of `corpus`
};

struct DocumentSetOptions {
  std::vector<SourceOptions> sources;
  std::vector<std::string> held_out;  // names; "austen/*" takes every name that begins with "austen/"
  double held_out_fraction = 0;       // and this share of the others, by (seed, name)
  uint64_t seed = 1;
  bool deduplicate = true;
  InvalidText invalid_text = InvalidText::kRefuse;
  std::string leave_out;  // a folder that is no source, wherever it lies: the build's own
};

enum class Split : uint8_t { kTrain, kHeldOut };

// What was read from one source.
struct SourceReport {
  std::string package, version;  // of a named corpus
  int64_t documents = 0;         // kept, both splits
  int64_t held_out = 0;          // of these
  int64_t bytes = 0;             // of their text
  int64_t duplicates = 0;        // left out: the same text, white space aside, as a document that is kept
  int64_t blank = 0;             // left out: nothing but white space
  int64_t replaced = 0;          // runs of bytes that are not UTF-8, replaced
  std::string sha256;            // over every document read, names and texts
};

class DocumentSet {
 public:
  // Reads every source. Errors: those of the readers; UsageError (64) for a held-out name that no document
  // has; MissingError (66) when there is no text at all.
  static absl::StatusOr<DocumentSet> Scan(DocumentSetOptions options);

  // The kept documents in the order of the sources; `index` counts those of one split. Stops at an error. A
  // source that no longer gives the same documents is a DamagedError, at its end at the latest.
  struct Place {
    Split split;
    int64_t index;
    size_t source;
  };
  using Visitor = std::function<absl::Status(const Document& document, const Place& place)>;
  absl::Status ForEach(const Visitor& visit) const;

  const DocumentSetOptions& options() const { return options_; }
  const std::vector<SourceReport>& reports() const { return reports_; }
  int64_t documents(Split split) const { return documents_[static_cast<size_t>(split)]; }
  int64_t bytes(Split split) const { return bytes_[static_cast<size_t>(split)]; }

 private:
  struct Record {
    Sha256Digest digest;  // of the text without differences of white space
    int64_t bytes = 0;
    Split split = Split::kTrain;
    bool kept = true;
  };
  explicit DocumentSet(DocumentSetOptions options) : options_(std::move(options)) {}
  absl::Status ScanSource(size_t source, std::vector<bool>* patterns_used);
  absl::StatusOr<Split> SplitOf(const std::string& name, std::vector<bool>* patterns_used) const;
  void DropDuplicates();

  DocumentSetOptions options_;
  std::vector<std::vector<Record>> records_;  // a source; blank documents have none
  std::vector<SourceReport> reports_;
  int64_t documents_[2] = {0, 0}, bytes_[2] = {0, 0};
};

}  // namespace moebius
