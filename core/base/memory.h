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

}  // namespace moebius
