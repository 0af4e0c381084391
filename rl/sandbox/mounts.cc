#include "rl/sandbox/mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/base/strings.h"

namespace moebius::sandbox {
namespace {

// The new root while it is being built; any folder that every system has.
constexpr char kStage[] = "/tmp";

// Collects the first failure, so that the recipe below reads straight down.
class Builder {
 public:
  const std::string& error() const { return error_; }

  void Check(bool done, std::string_view what) {
    if (!done && error_.empty()) error_ = Concat(what, ": ", std::strerror(errno));
  }
  void Dir(const std::string& path, mode_t mode = 0755) {
    if (error_.empty()) Check(mkdir(path.c_str(), mode) == 0, "mkdir " + path);
  }
  void Link(const std::string& target, const std::string& path) {
    if (error_.empty()) Check(symlink(target.c_str(), path.c_str()) == 0, "symlink " + path);
  }
  void Mount(const char* source, const std::string& path, const char* type, unsigned long flags,
             const std::string& options = "") {
    if (error_.empty())
      Check(mount(source, path.c_str(), type, flags, options.c_str()) == 0, "mount " + path);
  }
  void Text(const std::string& path, std::string_view text) {
    if (!error_.empty()) return;
    const FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    Check(file.get() >= 0 && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()),
          "write " + path);
  }
  void Copy(const SlotFile& file, const std::string& path) {
    if (!error_.empty()) return;
    const FileDescriptor out(
        open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, file.executable ? 0755 : 0644));
    struct stat info;
    Check(out.get() >= 0 && fstat(file.content.get(), &info) == 0, "create " + path);
    off_t at = 0;
    while (error_.empty() && at < info.st_size)
      Check(sendfile(out.get(), file.content.get(), &at, info.st_size - at) > 0, "write " + path);
  }
  // A folder of the system, with what is mounted below it, read-only.
  void BindReadOnly(const std::string& source, const std::string& target) {
    Mount(source.c_str(), target, nullptr, MS_BIND | MS_REC);
    if (!error_.empty()) return;
    struct Attributes {
      uint64_t set, clear, propagation, userns;
    } attributes = {.set = 1 | 2 | 4, .clear = 0, .propagation = 0, .userns = 0};  // read-only, nosuid, nodev
    constexpr int kRecursive = 0x8000;
    if (syscall(442 /* mount_setattr */, AT_FDCWD, target.c_str(), kRecursive, &attributes,
                sizeof attributes) == 0)
      return;
    Mount(nullptr, target, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV);
  }

 private:
  std::string error_;
};

bool IsFolder(const char* path, bool* link, std::string* target) {
  struct stat info;
  if (lstat(path, &info) != 0) return false;
  *link = S_ISLNK(info.st_mode);
  if (!*link) return S_ISDIR(info.st_mode);
  char text[256];
  const ssize_t length = readlink(path, text, sizeof text);
  if (length <= 0 || length == sizeof text) return false;
  target->assign(text, length);
  return true;
}

void AddSystem(Builder& builder, const std::string& root, const std::string& ld_cache, uid_t uid) {
  for (const char* name : {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    bool link;
    std::string target;
    if (!IsFolder(name, &link, &target)) continue;
    if (link) {
      builder.Link(target, root + name);
    } else {
      builder.Dir(root + name);
      builder.BindReadOnly(name, root + name);
    }
  }
  builder.Dir(root + "/etc");
  builder.Text(root + "/etc/passwd", Concat("root:x:0:0:root:/root:/bin/false\nsandbox:x:", uid, ":", uid,
                                            ":sandbox:/box:/bin/sh\n"));
  builder.Text(root + "/etc/group", Concat("root:x:0:\nsandbox:x:", uid, ":\n"));
  builder.Text(root + "/etc/hosts", "127.0.0.1 localhost\n");
  if (!ld_cache.empty()) builder.Text(root + "/etc/ld.so.cache", ld_cache);
  if (access("/etc/alternatives", X_OK) == 0) {  // libblas and others are found through it
    builder.Dir(root + "/etc/alternatives");
    builder.BindReadOnly("/etc/alternatives", root + "/etc/alternatives");
  }
}

void AddDevices(Builder& builder, const std::string& root) {
  builder.Dir(root + "/dev");
  for (const char* name : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
    builder.Text(root + name, "");
    builder.Mount(name, root + name, nullptr, MS_BIND);
  }
  builder.Link("/proc/self/fd", root + "/dev/fd");
  builder.Link("/proc/self/fd/0", root + "/dev/stdin");
  builder.Link("/proc/self/fd/1", root + "/dev/stdout");
  builder.Link("/proc/self/fd/2", root + "/dev/stderr");
}

// One memory file system behind all folders that can be written, so that one limit holds for all.
void AddWritable(Builder& builder, const std::string& root, const Limits& limits, uid_t uid) {
  const std::string disk = root + "/disk";
  builder.Dir(disk, 0700);
  builder.Mount("tmpfs", disk, "tmpfs", MS_NOSUID | MS_NODEV,
                Concat("size=", limits.disk_mb, "m,nr_inodes=", 64 + 1024 * limits.disk_mb, ",mode=0755"));
  for (const char* name : {"/box", "/tmp", "/dev/shm"}) {
    const std::string inside = disk + "/" + FileName(name);
    builder.Dir(inside, 0700);
    if (builder.error().empty()) builder.Check(chown(inside.c_str(), uid, uid) == 0, "chown " + inside);
    builder.Dir(root + name);
    builder.Mount(inside.c_str(), root + name, nullptr, MS_BIND);
  }
  if (builder.error().empty()) builder.Check(umount2(disk.c_str(), MNT_DETACH) == 0, "umount " + disk);
  rmdir(disk.c_str());
}

}  // namespace

std::string BuildRoot(const SlotRequest& request, const SlotContext& context, uid_t program_uid) {
  Builder builder;
  const std::string root = kStage;
  builder.Mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE);
  int64_t bytes = 1 << 20;
  for (const SlotFile& file : request.files) {
    struct stat info;
    builder.Check(fstat(file.content.get(), &info) == 0, "stat " + file.name);
    if (builder.error().empty()) bytes += info.st_size + 8192;
  }
  builder.Mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, Concat("size=", bytes, ",mode=0755"));
  AddSystem(builder, root, context.ld_cache, program_uid);
  AddDevices(builder, root);
  AddWritable(builder, root, request.limits, program_uid);
  builder.Dir(root + "/prog");
  for (const SlotFile& file : request.files) builder.Copy(file, root + "/prog/" + file.name);
  builder.Dir(root + "/proc");
  // Only processes: no kernel settings, keys or counters. Older kernels do not know the option.
  if (builder.error().empty() &&
      mount("proc", (root + "/proc").c_str(), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid") != 0)
    builder.Mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  if (!builder.error().empty()) return builder.error();
  builder.Check(chdir(root.c_str()) == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
                    umount2(".", MNT_DETACH) == 0 && chdir("/") == 0,
                "pivot_root");
  builder.Mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV);
  return builder.error();
}

std::string BuildPlainFolder(const SlotRequest& request, uid_t program_uid, bool root, std::string* folder) {
  Builder builder;
  char path[] = "/tmp/moebius-slot-XXXXXX";
  builder.Check(mkdtemp(path) != nullptr, "mkdtemp /tmp/moebius-slot-XXXXXX");
  if (!builder.error().empty()) return builder.error();
  *folder = path;
  builder.Check(chmod(path, 0755) == 0, "chmod");
  builder.Dir(*folder + "/prog");
  for (const SlotFile& file : request.files) builder.Copy(file, *folder + "/prog/" + file.name);
  builder.Dir(*folder + "/box", 0700);
  if (root && builder.error().empty())
    builder.Check(chown((*folder + "/box").c_str(), program_uid, program_uid) == 0, "chown " + *folder);
  return builder.error();
}

}  // namespace moebius::sandbox
