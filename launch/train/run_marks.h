// A run that goes on must go on with the teacher and the texts that it began with, which their paths do not
// say: `latest` of another run may have moved, token files may have been built anew, or lie elsewhere now.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "data/loader.h"

namespace moebius {

// Notes in `run_folder` (teacher.sha256) which weights lie in `teacher`: by the manifest of a checkpoint,
// else by config.json and the names, sizes and 64 places of the files. UsageError where a run that has a
// checkpoint began with others.
absl::Status MarkTeacher(const std::string& run_folder, const std::string& teacher);

// Likewise (init.sha256) for the weights of init.from, which a run that has a checkpoint needs no more: where
// others lie there now the text of a warning, else "".
absl::StatusOr<std::string> MarkInit(const std::string& run_folder, const std::string& init_from);

// Likewise (data.sha256) for files of conversations, pairs or problems, by all of their bytes: what each of
// `patterns` names (ExpandFiles of data/corpora); empty ones are left out.
absl::Status MarkFiles(const std::string& run_folder, const std::vector<std::string>& patterns);

// Likewise (data.sha256) for the token files of `texts`: by their sizes, their tokenizer and their tokens; of
// large files (TokenFile::kMaxCheckedBytes) by the tokens of 64 places and by what manifest.json lists.
absl::Status MarkTexts(const std::string& run_folder, const Loader& texts);

}  // namespace moebius
