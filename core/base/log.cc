#include "core/base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

namespace moebius {
namespace {

thread_local int log_rank = -1;

std::mutex files_mutex;
std::map<int, int> files;  // rank to open file

void WriteAll(int fd, std::string_view line) {
  while (!line.empty()) {
    const ssize_t n = write(fd, line.data(), line.size());
    if (n <= 0) return;
    line.remove_prefix(n);
  }
}

}  // namespace

void SetLogRank(int rank) { log_rank = rank; }
int LogRank() { return log_rank; }

bool AlsoLogTo(int rank, const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  std::lock_guard lock(files_mutex);
  const auto [at, added] = files.emplace(rank, fd);
  if (!added) close(std::exchange(at->second, fd));
  return true;
}

void LogLine(std::string_view text) {
  std::string line;
  if (log_rank >= 0) line = "[rank " + std::to_string(log_rank) + "] ";
  line.append(text).push_back('\n');
  WriteAll(STDERR_FILENO, line);
  std::lock_guard lock(files_mutex);
  const auto file = files.find(std::max(log_rank, 0));
  if (file != files.end()) WriteAll(file->second, line);
}

}  // namespace moebius
