#include "core/base/memory.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace moebius {
namespace {

// The number in a file; -1 where there is none ("max").
int64_t NumberIn(const char* path) {
  std::ifstream file(path);
  int64_t value = -1;
  return file >> value ? value : -1;
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
  const int64_t used = std::max<int64_t>(0, NumberIn("/sys/fs/cgroup/memory.current"));
  memory.available = std::min(memory.available, std::max<int64_t>(0, limit - used));
  return memory;
}

}  // namespace moebius
