// Files and folders read, listed, made and removed, with errors that name the path. Writing a file that must
// appear whole or not at all is atomic_file.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace moebius {

// A file descriptor that closes itself. Errors of close are lost: writers call Close of their own class.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.Release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int get() const { return fd_; }
  int Release();

 private:
  int fd_;
};

// An open regular file, read by position: a file cut short under us is an error, not a signal.
class RandomAccessFile {
 public:
  // MissingError if absent; DamagedError if it is not a regular file.
  static absl::StatusOr<RandomAccessFile> Open(const std::string& path);
  // The regular file behind an open descriptor; `path` is for messages.
  static absl::StatusOr<RandomAccessFile> FromDescriptor(const std::string& path, FileDescriptor fd);
  // Fills `out` from byte `offset` on; DamagedError when the file ends before.
  absl::Status Read(int64_t offset, std::span<std::byte> out) const;
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }

 private:
  RandomAccessFile(std::string path, FileDescriptor fd, int64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}
  std::string path_;
  FileDescriptor fd_;
  int64_t size_;
};

// A whole file mapped read-only. Reading a page that another process has cut off raises SIGBUS: for files
// that nobody changes under us (our own checkpoints, released models); else RandomAccessFile.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Bytes [offset, offset + size); DamagedError when they lie outside the file.
  absl::StatusOr<std::span<const std::byte>> Slice(uint64_t offset, uint64_t size) const;
  const std::string& path() const { return path_; }

 private:
  void Unmap();
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file (pipes and devices too). MissingError, or DamagedError when larger than max_bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 32);

// Bytes of a regular file.
absl::StatusOr<int64_t> FileSize(const std::string& path);
bool FileExists(const std::string& path);    // anything but a folder, links followed
bool FolderExists(const std::string& path);  // links followed
// Of a path that should be there and is not: "there is no such file or folder", "it is a file" where a folder
// was wanted, or what keeps this user from looking.
std::string WhyAbsent(const std::string& path);

// Names (no path, no "." and "..") in a folder, sorted by bytes.
absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path);
// Every regular file below `path`, as paths relative to it with '/', sorted; links are not followed.
absl::StatusOr<std::vector<std::string>> ListTree(const std::string& path);

// The folder and its parents; fine when it exists.
absl::Status MakeDirs(const std::string& path);
// A file, link or whole tree (links inside are removed, not followed); fine when absent.
absl::Status RemoveTree(const std::string& path);

// Makes the link `link` point to `target` (text as given, mostly relative) by temp name and rename: at every
// moment the old or the new link is there. CannotWriteError when `link` is a real file or folder.
absl::Status ReplaceSymlink(const std::string& link, const std::string& target);
absl::StatusOr<std::string> ReadSymlink(const std::string& link);

// Bytes that an unprivileged process may still write on the file system of `path`.
absl::StatusOr<int64_t> FreeDiskBytes(const std::string& path);

// fsync of a folder, so that the names in it survive a power loss.
absl::Status SyncFolder(const std::string& path);

// "a/b" from "a" and "b"; "b" from "" and "b"; `name` itself when absolute.
std::string JoinPath(std::string_view folder, std::string_view name);
// "a" from "a/b", "." from "b", "/" from "/b"; trailing slashes are ignored.
std::string ParentPath(std::string_view path);
// "b" from "a/b".
std::string FileName(std::string_view path);
// True for a plain name that stays in its folder: not empty, ".", "..", and without '/' and NUL.
bool IsPlainFileName(std::string_view name);

}  // namespace moebius
