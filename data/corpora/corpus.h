// The named corpora: real English text in Debian packages, read from where the package is installed ("/") or
// unpacked (launch/fetch_corpora.sh makes ROOT/PACKAGE/usr/...).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/corpora/document.h"

namespace moebius {

struct CorpusInfo {
  std::string_view name;     // "austen"
  std::string_view package;  // "r-cran-janeaustenr"
  std::string_view text;     // what it is, with its size
  std::string_view licence;
};

// In alphabetical order.
std::vector<CorpusInfo> NamedCorpora();

struct OpenCorpus {
  std::unique_ptr<DocumentReader> reader;
  std::string package;
  std::string version;  // of the package, "" when nothing says it
  std::string folder;   // that its usr/ lies in
};

// Looks in ROOT/PACKAGE and ROOT of each root in turn. UsageError (64) with the nearest name for an unknown
// one; MissingError (66) naming the package and the command that gets it; DamagedError (65) naming the file.
absl::StatusOr<OpenCorpus> OpenNamedCorpus(std::string_view name, const std::vector<std::string>& roots);

// ~/.cache/moebius/corpora (or $XDG_CACHE_HOME/moebius/corpora), then "/".
std::vector<std::string> DefaultCorpusRoots();

}  // namespace moebius
