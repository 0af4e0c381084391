#include "rl/sandbox/notify.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "core/io/file.h"
#include "rl/sandbox/watch.h"

namespace moebius::sandbox {
namespace {

// Where a call names files, and whether naming one there means to change it. -1: no such argument.
struct FileCall {
  int number;
  int folder, path;  // indices of arguments
  bool write;        // open and openat: see flags
  int flags = -1;
};

constexpr FileCall kFileCalls[] = {
    {SYS_open, -1, 0, false, 1}, {SYS_openat, 0, 1, false, 2}, {SYS_creat, -1, 0, true},
    {SYS_mkdir, -1, 0, true},    {SYS_mkdirat, 0, 1, true},    {SYS_rmdir, -1, 0, true},
    {SYS_unlink, -1, 0, true},   {SYS_unlinkat, 0, 1, true},   {SYS_rename, -1, 1, true},
    {SYS_renameat, 2, 3, true},  {SYS_renameat2, 2, 3, true},  {SYS_link, -1, 1, true},
    {SYS_linkat, 2, 3, true},    {SYS_symlink, -1, 1, true},   {SYS_symlinkat, 1, 2, true},
    {SYS_truncate, -1, 0, true}, {SYS_chmod, -1, 0, true},     {SYS_fchmodat, 0, 1, true},
    {SYS_chown, -1, 0, true},    {SYS_lchown, -1, 0, true},    {SYS_fchownat, 0, 1, true},
    {SYS_mknod, -1, 0, true},    {SYS_mknodat, 0, 1, true},    {SYS_utime, -1, 0, true},
    {SYS_utimes, -1, 0, true},   {SYS_utimensat, 0, 1, true},  {SYS_futimesat, 0, 1, true},
};

const FileCall* FindFileCall(int number) {
  for (const FileCall& call : kFileCalls)
    if (call.number == number) return &call;
  return nullptr;
}

std::string ReadText(pid_t pid, uint64_t address) {
  std::string text;
  char block[256];
  // Never across a page at once: the next one need not be there.
  while (text.size() < PATH_MAX) {
    const size_t size = std::min<size_t>(sizeof block, 4096 - (address + text.size()) % 4096);
    const iovec local = {block, size};
    const iovec remote = {reinterpret_cast<void*>(address + text.size()), size};
    const ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (got <= 0) return "";
    const size_t length = strnlen(block, got);
    text.append(block, length);
    if (length < static_cast<size_t>(got)) break;
  }
  return text;
}

std::string ReadLink(const std::string& path) {
  char text[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), text, sizeof text);
  return length > 0 ? std::string(text, length) : "";
}

bool Under(std::string_view path, std::string_view folder) {
  return path.substr(0, folder.size()) == folder &&
         (path.size() == folder.size() || path[folder.size()] == '/');
}

bool UnderAny(std::string_view path, std::span<const std::string_view> folders) {
  return std::any_of(folders.begin(), folders.end(),
                     [&](std::string_view folder) { return Under(path, folder); });
}

// What the program may fill as it likes, links included.
constexpr std::string_view kWritable[] = {"/box", "/tmp", "/dev/shm"};
constexpr std::string_view kOwn[] = {"/proc/self", "/proc/thread-self", "/dev/fd",     "/dev/null",
                                     "/dev/zero",  "/dev/full",         "/dev/random", "/dev/urandom",
                                     "/dev/stdin", "/dev/stdout",       "/dev/stderr", "/dev/tty"};
// What the C library, Python and the compiler look for on their own.
constexpr std::string_view kSystem[] = {"/usr",
                                        "/lib",
                                        "/lib32",
                                        "/lib64",
                                        "/libx32",
                                        "/bin",
                                        "/sbin",
                                        "/prog",
                                        "/box",
                                        "/sys/devices",
                                        "/sys/kernel/mm",
                                        "/proc/sys",
                                        "/proc/stat",
                                        "/proc/cpuinfo",
                                        "/proc/meminfo",
                                        "/proc/mounts",
                                        "/proc/filesystems",
                                        "/proc/version",
                                        "/etc/localtime",
                                        "/etc/ld.so.preload",
                                        "/etc/nsswitch.conf",
                                        "/etc/host.conf",
                                        "/etc/resolv.conf",
                                        "/etc/gai.conf",
                                        "/etc/services",
                                        "/etc/protocols",
                                        "/etc/mime.types",
                                        "/etc/ssl",
                                        "/etc/inputrc",
                                        "/etc/terminfo",
                                        "/etc/timezone",
                                        "/etc/apache2",
                                        "/etc/httpd"};

std::string Parent(const std::string& path) { return path.substr(0, std::max<size_t>(1, path.rfind('/'))); }

std::string FolderOf(pid_t pid, int folder) {
  char base[64];
  if (folder == AT_FDCWD) {
    std::snprintf(base, sizeof base, "/proc/%d/cwd", pid);
  } else {
    std::snprintf(base, sizeof base, "/proc/%d/fd/%d", pid, folder);
  }
  return base;
}

// A name in one of the slot's own folders that is no link: told without spelling out the path, which may be
// long.
bool IsPlainName(pid_t pid, int folder, const std::string& text) {
  if (text[0] == '/' || text.find("..") != std::string::npos) return false;
  const FileDescriptor base(open(FolderOf(pid, folder).c_str(), O_PATH | O_CLOEXEC));
  struct stat own, there;
  if (base.get() < 0 || stat("/box", &own) != 0 || fstat(base.get(), &there) != 0 ||
      own.st_dev != there.st_dev)
    return false;
  char target[8];
  return readlinkat(base.get(), text.c_str(), target, sizeof target) < 0;
}

// The absolute path that the call means, links that the program made followed; "" when it cannot be told.
std::string Resolve(pid_t pid, int folder, std::string path) {
  if (path[0] != '/') {
    const std::string base = ReadLink(FolderOf(pid, folder));
    if (base.empty()) return "";
    path = base + "/" + path;
  }
  path = NormalPath(path);
  for (int i = 0; i < 8 && UnderAny(path, kWritable); ++i) {
    const std::string target = ReadLink(path);
    if (target.empty()) break;
    path = NormalPath(target[0] == '/' ? target : Parent(path) + "/" + target);
  }
  return path;
}

bool IsAttemptOutside(pid_t pid, int folder, const std::string& text, bool write) {
  if (text.empty() || IsPlainName(pid, folder, text)) return false;
  const std::string path = Resolve(pid, folder, text);
  if (path.empty()) return false;
  struct stat info;
  return IsOutside({.path = path,
                    .write = write,
                    .exists = stat(path.c_str(), &info) == 0,
                    .parent_exists = stat(Parent(path).c_str(), &info) == 0});
}

// Calls whose arguments decide. Only values in registers are looked at: memory could change afterwards.
bool IsHarmless(const seccomp_data& data) {
  switch (data.nr) {
    case SYS_kill:
    case SYS_tkill:
    case SYS_tgkill:
    case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo:
    case SYS_pidfd_open:
      // The kernel reads 32 bits. Process 1 is the init.
      return static_cast<int>(data.args[0]) != 1;
    case SYS_ioctl:
      return static_cast<unsigned>(data.args[1]) != TIOCSTI &&
             static_cast<unsigned>(data.args[1]) != TIOCLINUX;
    case SYS_prctl:
      return static_cast<int>(data.args[0]) != PR_SET_SECCOMP && static_cast<int>(data.args[0]) != PR_SET_MM;
    default:
      return false;
  }
}

// Calls beyond this number are newer than the filter's author: programs expect to hear that they do not
// exist.
constexpr int kLastKnownCall = 450;
constexpr uint64_t kNamespaceFlags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                     CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | 0x80 /* CLONE_NEWTIME */;

}  // namespace

std::string NormalPath(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < path.size();) {
    size_t end = path.find('/', begin);
    if (end == std::string::npos) end = path.size();
    const std::string part = path.substr(begin, end - begin);
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else if (!part.empty() && part != ".") {
      parts.push_back(part);
    }
    begin = end + 1;
  }
  std::string normal;
  for (const std::string& part : parts) normal += "/" + part;
  return normal.empty() ? "/" : normal;
}

bool IsOutside(const NamedFile& file) {
  if (UnderAny(file.path, kOwn)) return false;
  if (Under(file.path, "/proc/1")) return true;
  if (UnderAny(file.path, kWritable)) {
    // Somebody else's folder of temporary files has the same name outside.
    return file.write ? !file.parent_exists : !file.exists && !Under(file.path, "/box");
  }
  if (file.write) return !(Under(file.path, "/proc") && file.exists);
  return !file.exists && !UnderAny(file.path, kSystem);
}

Notifier::Notifier(int listener, int max_tasks) : listener_(listener), max_tasks_(max_tasks) {
  // Since 6.6: the program and its init take turns on one processor, which makes an answer three times as
  // fast.
  ioctl(listener, SECCOMP_IOW(4, uint64_t) /* SECCOMP_IOCTL_NOTIF_SET_FLAGS */, 1 /* SYNC_WAKE_UP */);
}

bool Notifier::Answer() {
  union {
    seccomp_notif call;
    char room[512];
  } in = {};
  std::memset(&in, 0, sizeof in);
  if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &in) != 0) return errno == EINTR || errno == ENOENT;
  const seccomp_data& data = in.call.data;
  const auto pid = static_cast<pid_t>(in.call.pid);
  union {
    seccomp_notif_resp answer;
    char room[512];
  } out;
  std::memset(&out, 0, sizeof out);
  out.answer.id = in.call.id;
  const auto pass = [&] { out.answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE; };
  const auto refuse = [&](int error) { out.answer.error = -error; };

  if (const FileCall* file = FindFileCall(data.nr); file != nullptr) {
    pass();
    const int folder = file->folder < 0 ? AT_FDCWD : static_cast<int>(data.args[file->folder]);
    const uint64_t flags = file->flags < 0 ? 0 : data.args[file->flags];
    const bool write = file->write || (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0;
    if (!denied_) denied_ = IsAttemptOutside(pid, folder, ReadText(pid, data.args[file->path]), write);
  } else if (data.nr == SYS_mmap || data.nr == SYS_mremap) {
    asked_memory_ = true;
    pass();
  } else if (data.nr == SYS_clone && (data.args[0] & kNamespaceFlags) == 0) {
    if (CountTasks() < max_tasks_) {
      pass();
    } else {
      refused_thread_ = true;
      refuse(EAGAIN);
    }
  } else if (IsHarmless(data)) {
    pass();
  } else if (data.nr > kLastKnownCall) {
    refuse(ENOSYS);
  } else {
    denied_ = true;
    refuse(EPERM);
  }
  return ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &out) == 0 || errno == ENOENT || errno == EINTR;
}

}  // namespace moebius::sandbox
