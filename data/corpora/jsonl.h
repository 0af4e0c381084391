// Documents from JSONL: one object a line with the text under a key, as most public corpora come ({"text":
// "..."}).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/corpora/document.h"

namespace moebius {

// Every line of every file is a document named "SOURCE/FILE:LINE" (FILE: its name in `files`, without the
// folder that they share); empty lines are passed over. Files may be .gz or .zst. Errors (65) name file and
// line: not JSON, no string under `field`, a damaged or cut-short archive.
// invalid_text: of the line, since JSON is UTF-8.
std::unique_ptr<DocumentReader> ReadJsonl(std::vector<std::string> files, std::string source,
                                          std::string field, InvalidText invalid_text);

}  // namespace moebius
