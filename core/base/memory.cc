#include "core/base/memory.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <new>
#include <string>

#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// The number in a file; -1 where there is none ("max").
int64_t NumberIn(const char* path) {
  std::ifstream file(path);
  int64_t value = -1;
  return file >> value ? value : -1;
}

// Of the control group: pages of files, which go where memory is wanted.
int64_t FilePages() {
  std::ifstream file("/sys/fs/cgroup/memory.stat");
  int64_t sum = 0, bytes = 0;
  for (std::string name; file >> name >> bytes;) {
    if (name == "active_file" || name == "inactive_file") sum += bytes;
  }
  return sum;
}

}  // namespace

MachineMemory ReadMachineMemory() {
  MachineMemory memory;
  std::ifstream file("/proc/meminfo");
  int64_t kibibytes = 0;
  for (std::string word; file >> word;) {
    if (word == "MemTotal:" && file >> kibibytes) memory.total = kibibytes << 10;
    if (word == "MemAvailable:" && file >> kibibytes) memory.available = kibibytes << 10;
  }
  const int64_t limit = NumberIn("/sys/fs/cgroup/memory.max");
  if (limit <= 0) return memory;
  memory.total = std::min(memory.total, limit);
  const int64_t used = std::max<int64_t>(0, NumberIn("/sys/fs/cgroup/memory.current") - FilePages());
  memory.available = std::min(memory.available, std::max<int64_t>(0, limit - used));
  return memory;
}

void OutOfMemory(int64_t bytes) {
  std::set_new_handler(nullptr);
  static std::atomic<bool> told = false;
  if (told.exchange(true)) {  // another thread's, or there is not even memory to say more
    constexpr char kText[] = "error: out of memory\n";
    (void)!write(STDERR_FILENO, kText, sizeof kText - 1);
    _exit(kExitUnavailable);
  }
  const MachineMemory memory = ReadMachineMemory();
  LogLine(Concat("error: out of memory",
                 bytes > 0 ? Concat("; asked for ", HumanBytes(static_cast<double>(bytes))) : std::string(),
                 "; ", HumanBytes(static_cast<double>(memory.available)), " of ",
                 HumanBytes(static_cast<double>(memory.total)),
                 " are free (a limit of this process, ulimit -v, may be lower); do less at a time: smaller "
                 "batches or microbatches, shorter contexts, or bf16"));
  // _exit, as a failed CHECK: destructors must not touch checkpoints.
  _exit(kExitUnavailable);
}

}  // namespace moebius
