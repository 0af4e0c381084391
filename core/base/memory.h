// The main memory that this process may use.
#pragma once

#include <cstdint>

namespace moebius {

// Bytes; 0 where unknown.
struct MachineMemory {
  int64_t total = 0, available = 0;
};

// Of the machine, or of the control group (a container, a batch job) where that allows less.
MachineMemory ReadMachineMemory();

// Ends the process with exit code 69, saying what to do. `bytes` that were asked for; 0 where unknown.
[[noreturn]] void OutOfMemory(int64_t bytes);

}  // namespace moebius
