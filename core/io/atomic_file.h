// Files and folders that appear whole or not at all, even over kill -9, a full disk or a power loss: a
// temporary in the same folder, fsync, rename, fsync of the folder. Every error is a CannotWriteError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file.h"
#include "core/io/hash.h"

namespace moebius {

// "cannot VERB PATH; why; what to do" for an errno, as CannotWriteError.
absl::Status CannotWrite(int error, std::string_view verb, const std::string& path);

// Writes all of `bytes` to `fd`, through short writes and EINTR; `path` is for the message.
absl::Status WriteFully(int fd, std::span<const std::byte> bytes, const std::string& path);

// A new file ".NAME.tmp-PID-N" beside `path`, open for reading and writing; removed unless published.
class TemporaryFile {
 public:
  // CannotWriteError when the folder is missing or read-only, or `path` exists and is not a regular file
  // (renaming over /dev/null would replace the device).
  static absl::StatusOr<TemporaryFile> Create(const std::string& path);
  TemporaryFile(TemporaryFile&&) noexcept;
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  ~TemporaryFile();
  int fd() const { return fd_.get(); }
  const std::string& temporary_path() const { return temporary_; }
  const std::string& path() const { return path_; }
  // fsync, close, rename to path(), fsync of the folder. On an error the temporary is removed and what was at
  // path() before is untouched, save that an error of the last fsync leaves the new file in place.
  absl::Status Publish();

 private:
  TemporaryFile(std::string path, std::string temporary, FileDescriptor fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}
  std::string path_, temporary_;  // temporary_ is empty when nothing is left to remove
  FileDescriptor fd_;
};

// Writes a file front to back, hashing on the way. Without Commit the destructor leaves no trace.
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(const std::string& path);
  // After an error every further call returns that error.
  absl::Status Write(std::span<const std::byte> bytes);
  absl::Status Write(std::string_view text);
  // Publishes the file and returns size and SHA-256 of what was written.
  absl::StatusOr<FileHash> Commit();
  const std::string& path() const { return file_.path(); }

 private:
  explicit AtomicFile(TemporaryFile file) : file_(std::move(file)) {}
  absl::Status Flush();
  TemporaryFile file_;
  std::vector<std::byte> buffer_;
  Sha256 hash_;
  int64_t bytes_ = 0;
  absl::Status error_;
};

// `text` as the whole content of `path`, atomically.
absl::StatusOr<FileHash> WriteFileAtomically(const std::string& path, std::string_view text);

// A new folder ".NAME.tmp-PID-N" beside `path`; the caller fills it, Commit renames it to `path`. It is
// locked as long as it is temporary: what a killed process left has no lock.
class AtomicDirectory {
 public:
  enum class OnExisting { kFail, kReplace };
  // Removes what killed processes left of the same `path` before.
  static absl::StatusOr<AtomicDirectory> Create(const std::string& path);
  AtomicDirectory(AtomicDirectory&&) noexcept;
  AtomicDirectory& operator=(AtomicDirectory&&) = delete;
  ~AtomicDirectory();  // removes the temporary folder unless committed
  const std::string& temporary_path() const { return temporary_; }
  // fsyncs every file and folder inside, renames, fsyncs the parent. kFail: an existing `path` is an error
  // and stays as it was. kReplace: it is swapped out in one step where the file system can, then removed.
  absl::Status Commit(OnExisting on_existing = OnExisting::kFail);

 private:
  AtomicDirectory(std::string path, std::string temporary, FileDescriptor lock)
      : path_(std::move(path)), temporary_(std::move(temporary)), lock_(std::move(lock)) {}
  std::string path_, temporary_;
  FileDescriptor lock_;
};

// Removes what other, killed processes left in `folder`, and puts back what they had moved out of the way;
// only where no other process writes files (folders that others are filling stay).
absl::Status RemoveStaleTemporaries(const std::string& folder);

}  // namespace moebius
