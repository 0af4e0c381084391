#include "tests/core/io/scratch.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/check.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

void WriteText(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  (void)!write(fd, text.data(), text.size());
  close(fd);
}

bool MountSmall(const std::string& folder) {
  const uid_t uid = geteuid();
  if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) return false;
  if (uid != 0) WriteText("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1");
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return mount("none", folder.c_str(), "tmpfs", 0, "size=1m") == 0;
}

}  // namespace

Scratch::Scratch() {
  std::string name = std::filesystem::temp_directory_path() / "moebius-io-XXXXXX";
  CHECK(mkdtemp(name.data()) != nullptr) << name;
  folder_ = name;
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::permissions(folder_, std::filesystem::perms::owner_all, ignored);
  std::filesystem::remove_all(folder_, ignored);
}

std::string TestData(const std::string& name) {
  return Concat(MOEBIUS_SOURCE_DIR, "/tests/core/io/testdata/", name);
}
bool Contains(const absl::Status& status, const std::string& part) {
  return std::string(status.message()).find(part) != std::string::npos;
}

void WriteRaw(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

std::string ReadRaw(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

int InChild(const std::function<int()>& body) {
  const pid_t pid = fork();
  CHECK_GE(pid, 0);
  if (pid == 0) _exit(body());
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int InChildWithFullDisk(const std::string& folder, const std::function<int()>& body) {
  return InChild([&] {
    if (!MountSmall(folder)) {
      signal(SIGXFSZ, SIG_IGN);
      const struct rlimit limit = {512 << 10, 512 << 10};
      if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 99;
    }
    return body();
  });
}

int InChildWithReadOnlyFolder(const std::string& folder, const std::function<int()>& body) {
  return InChild([&] {
    if (chmod(folder.c_str(), 0555) != 0) return 99;
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 99;
    return body();
  });
}

std::string RunPython(const std::string& program, const Scratch& scratch) {
  WriteRaw(scratch.path("program.py"), program);
  const std::string command =
      std::string("cd '") + scratch.folder() + "' && " + kOraclePython + " program.py";
  FILE* pipe = popen(command.c_str(), "r");
  CHECK(pipe != nullptr);
  std::string out;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  return pclose(pipe) == 0 ? out : "";
}

}  // namespace moebius
