#include "core/base/log.h"

#include <unistd.h>

namespace moebius {
namespace {

thread_local int log_rank = -1;

}  // namespace

void SetLogRank(int rank) { log_rank = rank; }
int LogRank() { return log_rank; }

void LogLine(std::string_view text) {
  std::string line;
  if (log_rank >= 0) line = "[rank " + std::to_string(log_rank) + "] ";
  line.append(text).push_back('\n');
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (n <= 0) return;
    done += n;
  }
}

}  // namespace moebius
