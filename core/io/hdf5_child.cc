#include "core/io/hdf5_child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <span>
#include <string_view>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"

namespace moebius {
namespace {

constexpr rlim_t kExtraMemoryBytes = rlim_t{2} << 30;
constexpr int64_t kSlowestBytesPerSecond = 20'000'000;
// An answer is kGood or kBad, text, kEnd.
constexpr char kGood = '+', kBad = '-', kEnd = '\0';

// Sanitizers reserve terabytes of address space: no limit on it then.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void LimitMemory() {
  long pages = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  const rlim_t bytes = static_cast<rlim_t>(pages) * sysconf(_SC_PAGESIZE) + kExtraMemoryBytes;
  const struct rlimit limit = {bytes, bytes};
  if (pages > 0) setrlimit(RLIMIT_AS, &limit);
}
#else
void LimitMemory() {}
#endif

[[noreturn]] void RunChild(int out, int64_t file_bytes,
                           const std::function<absl::StatusOr<std::string>()>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const int signal_number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU})
    signal(signal_number, SIG_DFL);
  const rlim_t seconds = 2 + file_bytes / kSlowestBytesPerSecond;
  const struct rlimit cpu = {seconds, seconds + 1}, core = {0, 0};
  setrlimit(RLIMIT_CPU, &cpu);
  setrlimit(RLIMIT_CORE, &core);
  LimitMemory();
  std::set_new_handler(nullptr);  // the program's would speak
  try {
    const absl::StatusOr<std::string> result = body();
    const std::string answer = result.ok() ? std::string(1, kGood) + *result
                                           : std::string(1, kBad) + std::string(result.status().message());
    if (!WriteFully(out, std::as_bytes(std::span(answer)), "pipe").ok()) _exit(2);
    if (!WriteFully(out, std::as_bytes(std::span(&kEnd, 1)), "pipe").ok()) _exit(2);
  } catch (...) {
    // bad_alloc at the limit: no end mark says that it broke
  }
  _exit(0);
}

}  // namespace

absl::StatusOr<std::string> RunHdf5Child(const std::string& path, int64_t file_bytes,
                                         const std::function<absl::StatusOr<std::string>()>& body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return UnavailableError(Concat("cannot examine ", path, "; pipe: ", std::strerror(errno)));
  const FileDescriptor in(ends[0]);
  FileDescriptor out(ends[1]);
  const pid_t child = fork();
  if (child < 0) return UnavailableError(Concat("cannot examine ", path, "; fork: ", std::strerror(errno)));
  if (child == 0) RunChild(out.get(), file_bytes, body);
  out = FileDescriptor();
  std::string message;
  char block[4096];
  for (ssize_t n; (n = read(in.get(), block, sizeof block)) != 0;) {
    if (n > 0) message.append(block, n);
    if (n < 0 && errno != EINTR) break;
  }
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(child, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  if (message.size() >= 2 && message.back() == kEnd) {
    const std::string text = message.substr(1, message.size() - 2);
    if (message[0] == kGood) return text;
    return DamagedError(text);
  }
  if (reaped == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) {
    return DamagedError(Concat(path,
                               ": the HDF5 library takes too long to look through it; the file is damaged, "
                               "or cut into very many small chunks: write it again with larger ones"));
  }
  const std::string how =
      reaped == child && WIFSIGNALED(status) ? Concat(" (signal ", WTERMSIG(status), ")") : "";
  return DamagedError(Concat(path, ": the HDF5 library breaks on it", how, "; the file is damaged"));
}

}  // namespace moebius
