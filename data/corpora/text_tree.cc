#include "data/corpora/text_tree.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <span>
#include <system_error>
#include <utility>

#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/byte_source.h"
#include "core/io/file.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

// Shell matching of a name with * and ?. Tries every split at a star: fine for the few that a person writes.
bool Matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] == '*') {
    for (size_t i = 0; i <= name.size(); ++i) {
      if (Matches(pattern.substr(1), name.substr(i))) return true;
    }
    return false;
  }
  return !name.empty() && (pattern[0] == name[0] || pattern[0] == '?') &&
         Matches(pattern.substr(1), name.substr(1));
}

bool HasWildcard(std::string_view text) { return text.find_first_of("*?") != std::string_view::npos; }

std::vector<std::string> PartsOf(const std::string& path) {
  return absl::StrSplit(path, '/', absl::SkipEmpty());
}

// Without "./" and repeated slashes, which say nothing; "." of what is nothing else.
std::string Tidied(const std::string& path) {
  std::string out = path.starts_with('/') ? "/" : "";
  for (const std::string& part : PartsOf(path)) {
    if (part == ".") continue;
    if (!out.empty() && out.back() != '/') out += '/';
    out += part;
  }
  return out.empty() ? "." : out;
}

// Collects the files of a pattern, a part of the path at a time: only folders that it names are looked into.
class Walker {
 public:
  explicit Walker(const std::string& leave_out) {
    std::error_code ignored;
    if (!leave_out.empty()) leave_out_ = fs::weakly_canonical(Tidied(leave_out), ignored).string();
  }

  // Files below `folder`, but for hidden ones.
  absl::Status Below(const std::string& folder) {
    return ForEntries(folder, [&](const fs::directory_entry& entry, const std::string& path) {
      if (entry.path().filename().string().starts_with('.')) return absl::OkStatus();
      return IsOwnFolder(entry) ? Below(path) : TakeFile(path);
    });
  }

  // Files that the rest of a glob names, from the folder `base` on ("" is the current one); hidden ones where
  // a part begins with the dot itself, as in a shell.
  absl::Status Glob(const std::string& base, std::span<const std::string> parts) {
    const std::string& part = parts[0];
    const auto rest = parts.subspan(1);
    if (part == "**") {  // no folder, or any number of them
      if (!rest.empty()) RETURN_IF_ERROR(Glob(base, rest));
      return ForEntries(base, [&](const fs::directory_entry& entry, const std::string& path) {
        if (entry.path().filename().string().starts_with('.')) return absl::OkStatus();
        if (IsOwnFolder(entry)) return Glob(path, parts);
        return rest.empty() ? TakeFile(path) : absl::OkStatus();
      });
    }
    if (!HasWildcard(part)) return Next(Joined(base, part), rest);
    return ForEntries(base, [&](const fs::directory_entry& entry, const std::string& path) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with('.') && !part.starts_with('.')) return absl::OkStatus();
      return Matches(part, name) ? Next(path, rest) : absl::OkStatus();
    });
  }

  std::vector<std::string> Files() && {
    std::sort(files_.begin(), files_.end());
    files_.erase(std::unique(files_.begin(), files_.end()), files_.end());  // "**" finds some in two ways
    return std::move(files_);
  }

 private:
  static std::string Joined(const std::string& folder, const std::string& name) {
    return folder.empty() || folder == "." ? name : JoinPath(folder, name);
  }
  // Links to folders are not followed: they may lead back.
  static bool IsOwnFolder(const fs::directory_entry& entry) {
    std::error_code ignored;
    return !entry.is_symlink(ignored) && entry.is_directory(ignored);
  }

  absl::Status Next(const std::string& path, std::span<const std::string> rest) {
    if (rest.empty()) return TakeFile(path);
    return FolderExists(path) ? Glob(path, rest) : absl::OkStatus();
  }

  // What is no file (a pipe, a link to a folder) is left out; what may be one is not.
  absl::Status TakeFile(const std::string& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_regular_file(status)) files_.push_back(path);
    if (status.type() != fs::file_type::not_found) {
      return status.type() == fs::file_type::none
                 ? ErrnoError(error.value(), Concat("open ", Printable(path, 400)))
                 : absl::OkStatus();
    }
    if (!fs::is_symlink(path, error)) return absl::OkStatus();  // a glob named it
    return MissingError(
        Concat(Printable(path, 400), ": is a link to nothing; fetch what it points to, or remove it"));
  }

  absl::Status ForEntries(
      const std::string& folder,
      const std::function<absl::Status(const fs::directory_entry&, const std::string&)>& visit) {
    std::error_code error;
    const std::string place = folder.empty() ? "." : folder;
    if (IsLeftOut(place)) return absl::OkStatus();
    for (fs::directory_iterator it(place, error), end; !error && it != end; it.increment(error)) {
      RETURN_IF_ERROR(visit(*it, Joined(folder, it->path().filename().string())));
    }
    if (error) return ErrnoError(error.value(), Concat("list ", Printable(place, 400)));
    return absl::OkStatus();
  }

  // The folder itself, and the one of a hidden name beside it in which it is made (AtomicDirectory).
  bool IsLeftOut(const std::string& folder) const {
    if (leave_out_.empty()) return false;
    std::error_code error;
    const std::string path = fs::canonical(folder, error).string();
    return path == leave_out_ || (ParentPath(path) == ParentPath(leave_out_) &&
                                  FileName(path).starts_with(Concat(".", FileName(leave_out_), ".tmp-")));
  }

  std::string leave_out_;
  std::vector<std::string> files_;
};

// What to do about a path that names nothing.
std::string Advice(const std::string& pattern) {
  return pattern.find_first_of("[{") == std::string::npos
             ? "correct the path or glob"
             : "only *, ? and ** are patterns, not [...] and {...}; correct the path or glob";
}

class TextFileReader : public DocumentReader {
 public:
  TextFileReader(std::vector<std::string> files, std::string source)
      : files_(std::move(files)), prefix_(SharedFolder(files_)), source_(std::move(source)) {}

  absl::StatusOr<bool> Next(Document* document) override {
    if (next_file_ == files_.size()) return false;
    const std::string& path = files_[next_file_++];
    ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> bytes, OpenByteSource(path, kMaxDocumentBytes + 1));
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

absl::StatusOr<std::vector<std::string>> ExpandFiles(const std::string& given, const std::string& leave_out) {
  if (given.empty()) return UsageError("an empty path names no files; give a file, a folder or a glob");
  const std::string pattern = Tidied(given);
  std::error_code ignored;
  if (fs::is_regular_file(pattern, ignored)) return std::vector<std::string>{pattern};
  if (FileExists(pattern)) {
    return UsageError(Concat("'", Printable(given, 500),
                             "' is no regular file, and files are read twice; write it to one first"));
  }
  Walker walker(leave_out);
  absl::Status walked;
  if (FolderExists(pattern)) {
    walked = walker.Below(pattern);
  } else if (!HasWildcard(pattern)) {
    return MissingError(Concat("no file or folder '", Printable(given, 500), "'; ", Advice(given)));
  } else {
    const std::vector<std::string> parts = PartsOf(pattern);
    std::string base = pattern.starts_with('/') ? "/" : "";
    size_t first = 0;
    for (; !HasWildcard(parts[first]); ++first)
      base = base.empty() ? parts[first] : JoinPath(base, parts[first]);
    if (!base.empty() && !FolderExists(base)) {
      return MissingError(Concat("no folder '", Printable(base, 500), "' for '", Printable(given, 500), "'; ",
                                 Advice(given)));
    }
    walked = walker.Glob(base, std::span<const std::string>(parts).subspan(first));
  }
  if (!walked.ok()) return Annotate(walked, Concat("files of '", Printable(given, 500), "'"));
  std::vector<std::string> files = std::move(walker).Files();
  if (files.empty()) {
    return MissingError(Concat("'", Printable(given, 500), "' names no regular file; ", Advice(given)));
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
