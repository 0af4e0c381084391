#include "core/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

std::string Quoted(std::string_view verb, const std::string& path) {
  return Concat(verb, " ", Printable(path, 400));
}

absl::StatusOr<FileDescriptor> OpenForRead(const std::string& path, struct stat* info, int more_flags = 0) {
  int fd;
  do {
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | more_flags);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoError(errno, Quoted("open", path));
  FileDescriptor file(fd);
  if (fstat(fd, info) != 0) return ErrnoError(errno, Quoted("stat", path));
  if (S_ISDIR(info->st_mode)) {
    return MissingError(Concat(Quoted("open", path), ": is a folder; a file is needed"));
  }
  return file;
}

absl::StatusOr<FileDescriptor> OpenRegular(const std::string& path, struct stat* info) {
  // A pipe is not waited for.
  ASSIGN_OR_RETURN(FileDescriptor file, OpenForRead(path, info, O_NONBLOCK));
  if (!S_ISREG(info->st_mode)) {
    return DamagedError(Concat(Quoted("open", path), ": is not a regular file"));
  }
  return file;
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = other.Release();
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

int FileDescriptor::Release() { return std::exchange(fd_, -1); }

absl::StatusOr<RandomAccessFile> RandomAccessFile::Open(const std::string& path) {
  struct stat info;
  ASSIGN_OR_RETURN(FileDescriptor fd, OpenRegular(path, &info));
  return RandomAccessFile(path, std::move(fd), info.st_size);
}

absl::StatusOr<RandomAccessFile> RandomAccessFile::FromDescriptor(const std::string& path,
                                                                  FileDescriptor fd) {
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoError(errno, Quoted("stat", path));
  if (!S_ISREG(info.st_mode)) return DamagedError(Concat(Quoted("open", path), ": is not a regular file"));
  return RandomAccessFile(path, std::move(fd), info.st_size);
}

absl::Status RandomAccessFile::Read(int64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        pread(fd_.get(), out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, Quoted("read", path_));
    if (n == 0) {
      return DamagedError(Concat(Quoted("read", path_), ": the file ends at byte ",
                                 offset + static_cast<int64_t>(done), "; ", offset, " + ", out.size(),
                                 " bytes were expected"));
    }
    done += n;
  }
  return absl::OkStatus();
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  struct stat info;
  ASSIGN_OR_RETURN(const FileDescriptor fd, OpenRegular(path, &info));
  MappedFile file;
  file.path_ = path;
  if (info.st_size > 0) {
    void* data = mmap(nullptr, info.st_size, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (data == MAP_FAILED) return ErrnoError(errno, Quoted("map", path));
    file.data_ = static_cast<const std::byte*>(data);
    file.size_ = info.st_size;
  }
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    Unmap();
    path_ = std::move(other.path_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

MappedFile::~MappedFile() { Unmap(); }

void MappedFile::Unmap() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
  data_ = nullptr;
}

absl::StatusOr<std::span<const std::byte>> MappedFile::Slice(uint64_t offset, uint64_t size) const {
  if (offset > size_ || size > size_ - offset) {
    return DamagedError(Concat(Quoted("read", path_), ": bytes ", offset, " + ", size,
                               " lie outside the file of ", size_, " bytes"));
  }
  return bytes().subspan(offset, size);
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  struct stat info;
  ASSIGN_OR_RETURN(const FileDescriptor fd, OpenForRead(path, &info));
  const auto too_large = [&] {
    return DamagedError(Concat(Quoted("read", path), ": larger than the limit of ", max_bytes, " bytes"));
  };
  if (S_ISREG(info.st_mode) && info.st_size > max_bytes) return too_large();
  // The size is only a hint: files under /proc report 0, and a file may grow while we read.
  std::string out;
  out.resize(S_ISREG(info.st_mode) ? info.st_size + 1 : 65536);
  size_t done = 0;
  while (true) {
    if (done == out.size()) out.resize(out.size() + std::max<size_t>(out.size() / 2, 65536));
    const ssize_t n = read(fd.get(), out.data() + done, out.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, Quoted("read", path));
    if (n == 0) break;
    done += n;
    if (static_cast<int64_t>(done) > max_bytes) return too_large();
  }
  out.resize(done);
  return out;
}

absl::StatusOr<int64_t> FileSize(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrnoError(errno, Quoted("stat", path));
  if (!S_ISREG(info.st_mode)) return DamagedError(Concat(Quoted("stat", path), ": is not a regular file"));
  return info.st_size;
}

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && !S_ISDIR(info.st_mode);
}

bool FolderExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string WhyAbsent(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0) return "it is a file";
  if (errno == ENOENT || errno == ENOTDIR) return "there is no such file or folder";
  return Concat("this user may not look there (", std::strerror(errno), ")");
}

absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return ErrnoError(error.value(), Quoted("list", path));
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::vector<std::string>> ListTree(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;  // an entry that vanished meanwhile is no file of ours
    if (it->symlink_status(ignored).type() != fs::file_type::regular) continue;
    names.push_back(it->path().lexically_relative(path).generic_string());
  }
  if (error) return ErrnoError(error.value(), Quoted("list", path));
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status MakeDirs(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error && !FolderExists(path)) error = std::make_error_code(std::errc::not_a_directory);
  if (error) return ErrnoError(error.value(), Quoted("make folder", path), /*writing=*/true);
  return absl::OkStatus();
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return ErrnoError(error.value(), Quoted("remove", path), /*writing=*/true);
  return absl::OkStatus();
}

absl::Status ReplaceSymlink(const std::string& link, const std::string& target) {
  struct stat info;
  if (lstat(link.c_str(), &info) == 0 && !S_ISLNK(info.st_mode)) {
    return CannotWriteError(Concat(Quoted("replace link", link), ": is not a link; move it away"));
  }
  const std::string temp =
      JoinPath(ParentPath(link), Concat(".", FileName(link), ".tmp-", getpid(), "-link"));
  if (unlink(temp.c_str()) != 0 && errno != ENOENT) return ErrnoError(errno, Quoted("remove", temp), true);
  if (symlink(target.c_str(), temp.c_str()) != 0) return ErrnoError(errno, Quoted("make link", temp), true);
  if (rename(temp.c_str(), link.c_str()) != 0) {
    const int error = errno;
    unlink(temp.c_str());
    return ErrnoError(error, Quoted("replace link", link), true);
  }
  return SyncFolder(ParentPath(link));
}

absl::StatusOr<std::string> ReadSymlink(const std::string& link) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  if (error) return ErrnoError(error.value(), Quoted("read link", link));
  return target.string();
}

absl::StatusOr<int64_t> FreeDiskBytes(const std::string& path) {
  struct statvfs info;
  if (statvfs(path.c_str(), &info) != 0) return ErrnoError(errno, Quoted("free space of", path));
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

absl::Status SyncFolder(const std::string& path) {
  const FileDescriptor fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return ErrnoError(errno, Quoted("open folder", path), true);
  // Some network file systems cannot sync a folder; they answer EINVAL and have nothing to lose.
  if (fsync(fd.get()) != 0 && errno != EINVAL) return ErrnoError(errno, Quoted("sync folder", path), true);
  return absl::OkStatus();
}

std::string JoinPath(std::string_view folder, std::string_view name) {
  if (folder.empty() || (!name.empty() && name.front() == '/')) return std::string(name);
  return folder.back() == '/' ? Concat(folder, name) : Concat(folder, "/", name);
}

std::string ParentPath(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  if (slash == 0) return "/";
  return std::string(path.substr(0, slash));
}

std::string FileName(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

}  // namespace moebius
