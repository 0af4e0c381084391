// Documents from plain text files: a file, a folder or a glob; every file is a document.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/corpora/document.h"

namespace moebius {

// The regular files that `pattern` names, sorted: the file itself; every file below a folder (hidden ones
// left out); or what matches a glob, in which * and ? stop at '/' and a part that is ** is any number of
// folders. Links to files are files; links to folders are followed where the pattern names them, not below.
// What lies in the folder `leave_out` (a build's own) is left out. MissingError (66) when there is none,
// UsageError (64) for a pipe.
absl::StatusOr<std::vector<std::string>> ExpandFiles(const std::string& pattern,
                                                     const std::string& leave_out = "");

// The longest folder prefix ("a/b/", "") that all files share; of a single file, its folder.
std::string SharedFolder(const std::vector<std::string>& files);

// Every file a document named "SOURCE/PATH" (PATH without the shared folder); .gz, .dz and .zst are unpacked.
// A file that cannot be read ends the reading with its error (naming it): nothing is left out silently.
std::unique_ptr<DocumentReader> ReadTextFiles(std::vector<std::string> files, std::string source);

}  // namespace moebius
