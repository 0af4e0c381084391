#include "data/corpora/text_tree.h"

#include <algorithm>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/byte_source.h"
#include "core/io/file.h"

namespace moebius {
namespace {

// Shell matching with * and ? inside one path component and ** across components ("a/**/b" matches "a/b"
// too). Tries every split at a star: fine for the few stars that a person writes.
bool Matches(std::string_view pattern, std::string_view path) {
  if (pattern.empty()) return path.empty();
  if (pattern.starts_with("**/")) {
    if (Matches(pattern.substr(3), path)) return true;
    for (size_t slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/', slash + 1)) {
      if (Matches(pattern.substr(3), path.substr(slash + 1))) return true;
    }
    return false;
  }
  if (pattern.starts_with("**")) {
    for (size_t i = 0; i <= path.size(); ++i) {
      if (Matches(pattern.substr(2), path.substr(i))) return true;
    }
    return false;
  }
  if (pattern[0] == '*') {
    for (size_t i = 0; i <= path.size(); ++i) {
      if (Matches(pattern.substr(1), path.substr(i))) return true;
      if (i < path.size() && path[i] == '/') break;
    }
    return false;
  }
  if (path.empty() || (pattern[0] != path[0] && !(pattern[0] == '?' && path[0] != '/'))) return false;
  return Matches(pattern.substr(1), path.substr(1));
}

// What to do about a path that names nothing.
std::string Advice(const std::string& pattern) {
  return pattern.find_first_of("[{") == std::string::npos
             ? "correct the path or glob"
             : "only *, ? and ** are patterns, not [...] and {...}; correct the path or glob";
}

bool Hidden(std::string_view relative) {
  return relative.starts_with(".") || relative.find("/.") != std::string_view::npos;
}

class TextFileReader : public DocumentReader {
 public:
  TextFileReader(std::vector<std::string> files, std::string source)
      : files_(std::move(files)), prefix_(SharedFolder(files_)), source_(std::move(source)) {}

  absl::StatusOr<bool> Next(Document* document) override {
    if (next_file_ == files_.size()) return false;
    const std::string& path = files_[next_file_++];
    ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> bytes, OpenByteSource(path));
    ASSIGN_OR_RETURN(document->text, ReadAll(*bytes));
    if (document->text.starts_with("\xEF\xBB\xBF")) document->text.erase(0, 3);
    document->name = Concat(source_, "/", path.substr(prefix_.size()));
    document->origin = path;
    return true;
  }

 private:
  std::vector<std::string> files_;
  std::string prefix_, source_;
  size_t next_file_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ExpandFiles(const std::string& pattern) {
  if (pattern.empty()) return UsageError("an empty path names no files; give a file, a folder or a glob");
  if (FileExists(pattern)) return std::vector<std::string>{pattern};
  const size_t wildcard = pattern.find_first_of("*?");
  const bool folder = FolderExists(pattern);
  if (!folder && wildcard == std::string::npos) {
    return MissingError(Concat("no file or folder '", Printable(pattern, 500), "'; ", Advice(pattern)));
  }
  std::string base = pattern;
  if (!folder) {
    const size_t slash = pattern.rfind('/', wildcard);
    base = slash == std::string::npos ? "." : slash == 0 ? "/" : pattern.substr(0, slash);
  }
  if (!FolderExists(base)) {
    return MissingError(Concat("no folder '", Printable(base, 500), "' for '", Printable(pattern, 500), "'; ",
                               Advice(pattern)));
  }
  auto names = ListTree(base);
  if (!names.ok()) return Annotate(names.status(), Concat("files of '", Printable(pattern, 500), "'"));
  std::vector<std::string> files;
  for (const std::string& name : *names) {
    const std::string path = base == "." && !folder ? name : JoinPath(base, name);
    if (folder ? !Hidden(name) : Matches(pattern, path)) files.push_back(path);
  }
  if (files.empty()) {
    return MissingError(Concat("'", Printable(pattern, 500), "' names no regular file; ", Advice(pattern)));
  }
  return files;
}

std::string SharedFolder(const std::vector<std::string>& files) {
  if (files.empty()) return "";
  size_t length = files[0].size();
  for (const std::string& file : files) {
    const size_t limit = std::min(length, file.size());
    length = std::mismatch(file.begin(), file.begin() + limit, files[0].begin()).first - file.begin();
  }
  const size_t slash = files[0].substr(0, length).rfind('/');
  return slash == std::string::npos ? "" : files[0].substr(0, slash + 1);
}

std::unique_ptr<DocumentReader> ReadTextFiles(std::vector<std::string> files, std::string source) {
  return std::make_unique<TextFileReader>(std::move(files), std::move(source));
}

}  // namespace moebius
