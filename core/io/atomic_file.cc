#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBufferBytes = 256 * 1024;
constexpr std::string_view kInfix = ".tmp-";
constexpr std::string_view kOld = "-old";  // behind a temporary folder's name: what lay in its place before
constexpr int kMaxAttempts = 10000;

// Tells processes apart, also those that had the same number one after the other (in a container all are
// process 1).
int64_t ProcessTag() {
  static const int64_t seconds = std::time(nullptr);
  return seconds << 22 | getpid();  // process numbers have 22 bits at most
}

std::string TemporaryName(const std::string& path, int attempt) {
  return JoinPath(ParentPath(path), Concat(".", FileName(path), kInfix, ProcessTag(), "-", attempt));
}

// The tag in ".NAME.tmp-TAG-N", or nothing.
std::optional<int64_t> TagOfTemporary(std::string_view name) {
  const size_t infix = name.rfind(kInfix);
  if (name.empty() || name[0] != '.' || infix == std::string_view::npos || infix < 2) return std::nullopt;
  const std::string_view rest = name.substr(infix + kInfix.size());
  int64_t tag = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), tag);
  if (error != std::errc() || end == rest.data() + rest.size() || *end != '-') return std::nullopt;
  return tag;
}

enum class Lock { kTaken, kHeld, kUnknown };

// The lock of a temporary folder. kHeld: by another process that is alive, wherever it runs; kUnknown: not
// all network file systems have locks for folders.
Lock LockFolder(const std::string& path, FileDescriptor* lock) {
  *lock = FileDescriptor(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (lock->get() < 0) return Lock::kUnknown;
  if (flock(lock->get(), LOCK_EX | LOCK_NB) == 0) return Lock::kTaken;
  return errno == EWOULDBLOCK ? Lock::kHeld : Lock::kUnknown;
}

// What a process that was killed between the two renames of a Commit had moved out of the way goes back to
// where nothing lies now. `names` are all in `folder`.
absl::Status PutBack(const std::string& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (!TagOfTemporary(name) || !name.ends_with(kOld)) continue;
    const std::string old = JoinPath(folder, name);
    FileDescriptor lock;  // of the folder that was to take its place
    if (LockFolder(old.substr(0, old.size() - kOld.size()), &lock) == Lock::kHeld) continue;
    const std::string path = JoinPath(folder, name.substr(1, name.rfind(kInfix) - 1));
    if (renameat2(AT_FDCWD, old.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) == 0) continue;
    struct stat info;
    if (lstat(path.c_str(), &info) != 0 && rename(old.c_str(), path.c_str()) != 0 && errno != ENOENT)
      return CannotWrite(errno, "rename", old);
  }
  return absl::OkStatus();
}

// Folders that killed processes left beside `path`, on the way to it. What cannot be removed stays.
void RemoveAbandoned(const std::string& path) {
  const std::string folder = ParentPath(path), mark = Concat(".", FileName(path), kInfix);
  std::vector<std::string> left;
  for (const std::string& name : ListDir(folder).value_or(std::vector<std::string>())) {
    if (name.starts_with(mark)) left.push_back(name);
  }
  if (!PutBack(folder, left).ok()) return;
  for (const std::string& name : left) {
    const bool same = name.rfind(kInfix) + kInfix.size() == mark.size();
    if (!same || !TagOfTemporary(name)) continue;
    FileDescriptor lock;
    if (LockFolder(JoinPath(folder, name), &lock) == Lock::kTaken) {
      RemoveTree(JoinPath(folder, name)).IgnoreError();
    }
  }
}

absl::Status SyncPath(const std::string& path) {
  const FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) return CannotWrite(errno, "open", path);
  if (fsync(fd.get()) != 0) return CannotWrite(errno, "sync", path);
  return absl::OkStatus();
}

// Every file, then every folder, `path` itself last.
absl::Status SyncTree(const std::string& path) {
  std::error_code error;
  std::vector<std::string> folders = {path};
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const fs::file_type type = it->symlink_status(error).type();
    if (error) break;
    if (type == fs::file_type::directory) folders.push_back(it->path().string());
    if (type == fs::file_type::regular) RETURN_IF_ERROR(SyncPath(it->path().string()));
  }
  if (error) return CannotWrite(error.value(), "list", path);
  for (size_t i = folders.size(); i-- > 0;) RETURN_IF_ERROR(SyncFolder(folders[i]));
  return absl::OkStatus();
}

}  // namespace

absl::Status CannotWrite(int error, std::string_view verb, const std::string& path) {
  std::string what = Concat("cannot ", verb, " ", Printable(path, 400), "; ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT) what += "; free some space and run again";
  if (error == EACCES || error == EROFS || error == EPERM) what += "; choose a folder that may be written";
  if (error == ENOENT || error == ENOTDIR) what += "; make the folder first";
  if (error == EFBIG) what += "; raise the limit on file sizes (ulimit -f)";
  return CannotWriteError(what);
}

absl::Status WriteFully(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return CannotWrite(errno, "write", path);
    bytes = bytes.subspan(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<TemporaryFile> TemporaryFile::Create(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return CannotWriteError(Concat("cannot write ", Printable(path, 400), "; it exists and is ",
                                   S_ISDIR(info.st_mode) ? "a folder" : "not a regular file",
                                   "; choose another name"));
  }
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    std::string temporary = TemporaryName(path, attempt);
    const int fd = open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd >= 0) return TemporaryFile(path, std::move(temporary), FileDescriptor(fd));
    if (errno != EEXIST && errno != EINTR) return CannotWrite(errno, "write", path);
  }
  return CannotWriteError(
      Concat("cannot write ", Printable(path, 400), "; its folder is full of temporary files"));
}

TemporaryFile::TemporaryFile(TemporaryFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, "")),
      fd_(std::move(other.fd_)) {}

TemporaryFile::~TemporaryFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status TemporaryFile::Publish() {
  CHECK(!temporary_.empty()) << "published twice: " << path_;
  const std::string temporary = std::exchange(temporary_, "");
  const auto fail = [&](std::string_view verb) {
    const int error = errno;
    unlink(temporary.c_str());
    return CannotWrite(error, verb, path_);
  };
  if (fsync(fd_.get()) != 0) return fail("sync");
  // Network file systems report a failed write-back only here.
  if (close(fd_.Release()) != 0) return fail("close");
  if (rename(temporary.c_str(), path_.c_str()) != 0) return fail("rename to");
  return SyncFolder(ParentPath(path_));
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  ASSIGN_OR_RETURN(TemporaryFile file, TemporaryFile::Create(path));
  return AtomicFile(std::move(file));
}

absl::Status AtomicFile::Write(std::span<const std::byte> bytes) {
  if (!error_.ok()) return error_;
  hash_.Update(bytes);
  bytes_ += static_cast<int64_t>(bytes.size());
  if (buffer_.size() + bytes.size() <= kBufferBytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(Flush());
  if (bytes.size() >= kBufferBytes) return error_ = WriteFully(file_.fd(), bytes, file_.path());
  buffer_.assign(bytes.begin(), bytes.end());
  return absl::OkStatus();
}

absl::Status AtomicFile::Write(std::string_view text) { return Write(std::as_bytes(std::span(text))); }

absl::Status AtomicFile::Flush() {
  if (error_.ok()) error_ = WriteFully(file_.fd(), buffer_, file_.path());
  buffer_.clear();
  return error_;
}

absl::StatusOr<FileHash> AtomicFile::Commit() {
  RETURN_IF_ERROR(Flush());
  RETURN_IF_ERROR(file_.Publish());
  return FileHash{hash_.FinishHex(), bytes_};
}

absl::StatusOr<FileHash> WriteFileAtomically(const std::string& path, std::string_view text) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.Write(text));
  return file.Commit();
}

absl::StatusOr<AtomicDirectory> AtomicDirectory::Create(const std::string& path) {
  RemoveAbandoned(path);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    std::string temporary = TemporaryName(path, attempt);
    if (mkdir(temporary.c_str(), 0777) == 0) {
      FileDescriptor lock;
      const Lock got = LockFolder(temporary, &lock);
      // Between mkdir and lock another process may have taken it for abandoned.
      if (got == Lock::kHeld || !FolderExists(temporary)) continue;
      return AtomicDirectory(path, std::move(temporary), std::move(lock));
    }
    if (errno != EEXIST) return CannotWrite(errno, "make folder", path);
  }
  return CannotWriteError(
      Concat("cannot make folder ", Printable(path, 400), "; its parent is full of temporaries"));
}

AtomicDirectory::AtomicDirectory(AtomicDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, "")),
      lock_(std::move(other.lock_)) {}

AtomicDirectory::~AtomicDirectory() {
  if (!temporary_.empty()) (void)RemoveTree(temporary_);
}

absl::Status AtomicDirectory::Commit(OnExisting on_existing) {
  CHECK(!temporary_.empty()) << "committed twice: " << path_;
  RETURN_IF_ERROR(SyncTree(temporary_));
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) == 0) {
    temporary_.clear();
    return SyncFolder(ParentPath(path_));
  }
  struct stat info;
  const bool exists = lstat(path_.c_str(), &info) == 0;
  if (exists && on_existing == OnExisting::kFail) {
    return CannotWriteError(
        Concat("cannot make folder ", Printable(path_, 400), "; it exists; remove or rename it"));
  }
  // A file system without renameat2 answers EINVAL: then there is a moment with neither folder in place.
  // Where a process is killed in it, the next one puts the old one back (PutBack).
  if (!exists || renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
    const std::string old = Concat(temporary_, kOld);
    if (exists && rename(path_.c_str(), old.c_str()) != 0) return CannotWrite(errno, "rename", path_);
    if (rename(temporary_.c_str(), path_.c_str()) != 0) {
      const int error = errno;
      if (exists) (void)rename(old.c_str(), path_.c_str());
      return CannotWrite(error, "rename to", path_);
    }
    temporary_.clear();
    RETURN_IF_ERROR(SyncFolder(ParentPath(path_)));
    return exists ? RemoveTree(old) : absl::OkStatus();
  }
  RETURN_IF_ERROR(SyncFolder(ParentPath(path_)));
  return RemoveTree(std::exchange(temporary_, ""));  // what was at path_ before
}

absl::Status RemoveStaleTemporaries(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  RETURN_IF_ERROR(PutBack(folder, names));
  for (const std::string& name : names) {
    const std::optional<int64_t> tag = TagOfTemporary(name);
    if (!tag.has_value() || *tag == ProcessTag()) continue;
    FileDescriptor lock;
    const std::string path = JoinPath(folder, name);
    if (LockFolder(path, &lock) != Lock::kHeld) RETURN_IF_ERROR(RemoveTree(path));
  }
  return absl::OkStatus();
}

}  // namespace moebius
