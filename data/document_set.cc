#include "data/document_set.h"

#include <cstring>
#include <unordered_map>
#include <utility>

#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/corpora/corpus.h"
#include "data/corpora/jsonl.h"
#include "data/corpora/text_tree.h"

namespace moebius {
namespace {

struct OpenSource {
  std::unique_ptr<DocumentReader> reader;
  std::string package, version;
};

absl::StatusOr<OpenSource> Open(const SourceOptions& source, const DocumentSetOptions& options) {
  OpenSource open;
  if (!source.corpus.empty()) {
    ASSIGN_OR_RETURN(OpenCorpus corpus, OpenNamedCorpus(source.corpus, source.roots));
    open = {std::move(corpus.reader), corpus.package, corpus.version};
  } else if (!source.text.empty()) {
    ASSIGN_OR_RETURN(std::vector<std::string> files, ExpandFiles(source.text, options.leave_out));
    open.reader = ReadTextFiles(std::move(files), source.name);
  } else {
    ASSIGN_OR_RETURN(std::vector<std::string> files, ExpandFiles(source.jsonl, options.leave_out));
    open.reader = ReadJsonl(std::move(files), source.name, source.text_field, options.invalid_text);
  }
  return open;
}

// SHA-256 with every run of white space as one blank, none at the ends.
Sha256Digest NormalisedDigest(std::string_view text) {
  std::string normalised;
  normalised.reserve(text.size());
  bool pending = false;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (space) {
      pending = !normalised.empty();
      continue;
    }
    if (pending) normalised.push_back(' ');
    pending = false;
    normalised.push_back(c);
  }
  return Sha256Of(normalised);
}

// Into the hash of everything that a source holds.
void Update(const Document& document, Sha256* everything) {
  everything->Update(Concat(document.name, "\n", document.text.size(), "\n"));
  everything->Update(document.text);
}

bool NameMatches(std::string_view pattern, std::string_view name) {
  if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
  return name == pattern;
}

struct DigestHash {
  size_t operator()(const Sha256Digest& digest) const {
    size_t hash;
    std::memcpy(&hash, digest.data(), sizeof hash);
    return hash;
  }
};

}  // namespace

absl::StatusOr<DocumentSet> DocumentSet::Scan(DocumentSetOptions options) {
  DocumentSet set(std::move(options));
  std::vector<bool> patterns_used(set.options_.held_out.size(), false);
  for (size_t s = 0; s < set.options_.sources.size(); ++s) RETURN_IF_ERROR(set.ScanSource(s, &patterns_used));
  for (size_t p = 0; p < patterns_used.size(); ++p) {
    if (!patterns_used[p]) {
      return UsageError(
          Concat("held_out: no document is named '", Printable(set.options_.held_out[p]),
                 "'; names are SOURCE/DOCUMENT as in 'austen/persuasion'; correct the name, or see all names "
                 "with --list-documents"));
    }
  }
  if (set.options_.deduplicate) set.DropDuplicates();
  for (size_t s = 0; s < set.records_.size(); ++s) {
    for (const Record& record : set.records_[s]) {
      if (!record.kept) continue;
      ++set.reports_[s].documents;
      set.reports_[s].held_out += record.split == Split::kHeldOut;
      set.reports_[s].bytes += record.bytes;
      ++set.documents_[static_cast<size_t>(record.split)];
      set.bytes_[static_cast<size_t>(record.split)] += record.bytes;
    }
  }
  if (set.documents_[0] + set.documents_[1] == 0) {
    return MissingError("no text in any source; every document is empty; give sources with text");
  }
  return set;
}

absl::StatusOr<Split> DocumentSet::SplitOf(const std::string& name, std::vector<bool>* patterns_used) const {
  bool held_out = false;
  for (size_t p = 0; p < options_.held_out.size(); ++p) {
    if (!NameMatches(options_.held_out[p], name)) continue;
    (*patterns_used)[p] = true;
    held_out = true;
  }
  if (!held_out && options_.held_out_fraction > 0) {
    held_out = RandomStream(options_.seed, "data/held-out/" + name).Uniform(0) < options_.held_out_fraction;
  }
  return held_out ? Split::kHeldOut : Split::kTrain;
}

absl::Status DocumentSet::ScanSource(size_t source, std::vector<bool>* patterns_used) {
  ASSIGN_OR_RETURN(const OpenSource open, Open(options_.sources[source], options_));
  SourceReport report{.package = open.package, .version = open.version, .sha256 = ""};
  std::vector<Record> records;
  Sha256 everything;
  Document document;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, open.reader->Next(&document));
    if (!more) break;
    if (std::ssize(document.text) > kMaxDocumentBytes) {
      return UsageError(
          Concat(document.origin, ": a document of ", document.text.size(),
                 " bytes; tokenizers take less than 2 GiB at once; split the file, or give JSONL"));
    }
    ASSIGN_OR_RETURN(const int64_t replaced, MakeValidUtf8(options_.invalid_text, &document));
    report.replaced += replaced + document.replaced;
    Update(document, &everything);
    if (IsBlank(document.text)) {
      ++report.blank;
      continue;
    }
    Record record;
    ASSIGN_OR_RETURN(record.split, SplitOf(document.name, patterns_used));
    record.digest = NormalisedDigest(document.text);
    record.bytes = static_cast<int64_t>(document.text.size());
    records.push_back(record);
  }
  report.sha256 = everything.FinishHex();
  records_.push_back(std::move(records));
  reports_.push_back(std::move(report));
  return absl::OkStatus();
}

// Of equal documents the first held-out one is kept, else the first: held-out text never stays in the
// training text.
void DocumentSet::DropDuplicates() {
  std::unordered_map<Sha256Digest, Record*, DigestHash> kept;
  for (const Split split : {Split::kHeldOut, Split::kTrain}) {
    for (size_t s = 0; s < records_.size(); ++s) {
      for (Record& record : records_[s]) {
        if (record.split != split || kept.emplace(record.digest, &record).second) continue;
        record.kept = false;
        ++reports_[s].duplicates;
      }
    }
  }
}

absl::Status DocumentSet::ForEach(const Visitor& visit) const {
  int64_t index[2] = {0, 0};
  for (size_t s = 0; s < options_.sources.size(); ++s) {
    ASSIGN_OR_RETURN(const OpenSource open, Open(options_.sources[s], options_));
    const absl::Status changed =
        DamagedError(Concat("source '", options_.sources[s].name,
                            "' changed while it was being read; run again when it is at rest"));
    Document document;
    Sha256 everything;
    size_t next = 0;
    while (true) {
      ASSIGN_OR_RETURN(const bool more, open.reader->Next(&document));
      if (!more) break;
      RETURN_IF_ERROR(MakeValidUtf8(options_.invalid_text, &document).status());
      Update(document, &everything);
      if (IsBlank(document.text)) continue;
      if (next == records_[s].size() || records_[s][next].bytes != static_cast<int64_t>(document.text.size()))
        return changed;
      const Record& record = records_[s][next++];
      if (!record.kept) continue;
      RETURN_IF_ERROR(visit(document, {record.split, index[static_cast<size_t>(record.split)]++, s}));
    }
    // Another text of the same length has another hash, and so has the same text under another name.
    if (next != records_[s].size() || everything.FinishHex() != reports_[s].sha256) return changed;
  }
  return absl::OkStatus();
}

}  // namespace moebius
