#include "core/io/json_lines.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <span>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/json.h"

namespace moebius {
namespace {

// Where the last whole line ends.
absl::StatusOr<int64_t> WholeLines(int fd, int64_t size, const std::string& path) {
  char block[4096];
  int64_t end = size;
  while (end > 0) {
    const int64_t begin = std::max<int64_t>(0, end - static_cast<int64_t>(sizeof block));
    const ssize_t n = pread(fd, block, end - begin, begin);
    if (n != end - begin) return ErrnoError(errno, "read " + path);
    for (int64_t i = n; i > 0; --i) {
      if (block[i - 1] == '\n') return begin + i;
    }
    end = begin;
  }
  return 0;
}

constexpr int64_t kMaxBytes = int64_t{8} << 30;

}  // namespace

absl::StatusOr<JsonLinesWriter> JsonLinesWriter::Open(const std::string& path) {
  FileDescriptor fd(open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (fd.get() < 0) return ErrnoError(errno, "open " + path, /*writing=*/true);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoError(errno, "stat " + path, true);
  if (!S_ISREG(info.st_mode))
    return CannotWriteError(Concat("cannot append to ", path, "; it is no regular file; remove it"));
  ASSIGN_OR_RETURN(const int64_t whole, WholeLines(fd.get(), info.st_size, path));
  if (whole < info.st_size && ftruncate(fd.get(), whole) != 0)
    return ErrnoError(errno, "truncate " + path, true);
  return JsonLinesWriter(path, std::move(fd), whole);
}

absl::Status JsonLinesWriter::Append(std::string_view object) {
  const std::string line = Concat(object, "\n");
  const absl::Status status = WriteFully(fd_.get(), std::as_bytes(std::span(line)), path_);
  if (!status.ok()) {
    // The error that counts is the write's; if this fails too, the next Open repairs the file.
    [[maybe_unused]] const int ignored = ftruncate(fd_.get(), size_);
    return status;
  }
  size_ += static_cast<int64_t>(line.size());
  return absl::OkStatus();
}

absl::Status JsonLinesWriter::Sync() {
  return fdatasync(fd_.get()) == 0 ? absl::OkStatus() : ErrnoError(errno, "sync " + path_, /*writing=*/true);
}

absl::Status ReadJsonLines(const std::string& path,
                           const std::function<absl::Status(const nlohmann::json&, int64_t)>& line) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  size_t begin = 0;
  for (int64_t number = 1;; ++number) {
    const size_t end = text.find('\n', begin);
    const std::string source = Concat(path, ", line ", number);
    if (end == std::string::npos) {
      // A torn line is ours, and NULs where a line should be are the file system's; a file of neither is
      // none.
      if (begin > 0 || text.empty() || text[0] == '{' || text[0] == '\0') return absl::OkStatus();
      return DamagedError(Concat(source, ": not a JSON object; the file is damaged; restore or remove it"));
    }
    ASSIGN_OR_RETURN(const nlohmann::json object,
                     ParseJson(std::string_view(text).substr(begin, end - begin), source));
    if (!object.is_object())
      return DamagedError(Concat(source, ": not a JSON object; the file is damaged; restore or remove it"));
    RETURN_IF_ERROR(line(object, number));
    begin = end + 1;
  }
}

absl::Status CutJsonLines(const std::string& path, int64_t last_step) {
  if (!FileExists(path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  std::string kept;
  size_t begin = 0;
  for (int64_t number = 1;; ++number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const std::string source = Concat(path, ", line ", number);
    // Another program's damage is not ours to throw away.
    const auto damaged = [&](const absl::Status& status) {
      return DamagedError(Concat(status.message(), "; remove that line: sed -i ", number, "d '", path, "'"));
    };
    const absl::StatusOr<nlohmann::json> object = ParseJson(line, source);
    if (!object.ok()) return damaged(object.status());
    const absl::StatusOr<int64_t> of = GetInt(*object, "step", source);
    if (!of.ok()) return damaged(of.status());
    const int64_t step = *of;
    if (step <= last_step) kept.append(line).push_back('\n');
    begin = end + 1;
  }
  if (kept.size() == text.size()) return absl::OkStatus();
  return WriteFileAtomically(path, kept).status();
}

}  // namespace moebius
