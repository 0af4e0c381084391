// What one slot may use. The defaults are those of the tests file (docs/sandbox.md).
#pragma once

#include <cstdint>

namespace moebius::sandbox {

inline constexpr int64_t kMiB = 1 << 20;
// As many times its wall_s a program may take where it waits for processors that others have.
inline constexpr int64_t kMostWallFactor = 3;

struct Limits {
  double cpu_s = 2;     // all processes and threads together
  double wall_s = 5;    // from the start of the program, beside what it waits for a processor
  int memory_mb = 256;  // MiB, all processes together, files in the slot included where control groups work
  int processes = 32;   // processes and threads
  int disk_mb = 16;     // MiB, everything written under /box, /tmp and /dev/shm
  int output_kb = 256;  // KiB, of each of standard output, standard error and the result
};

// For the compiler, whatever the tests say.
inline constexpr Limits kCompileLimits = {
    .cpu_s = 10, .wall_s = 20, .memory_mb = 1024, .processes = 32, .disk_mb = 64, .output_kb = 256};

// For a checker program, whose own slot must not depend on what the tests allow the program.
inline constexpr Limits kCheckerLimits = {
    .cpu_s = 10, .wall_s = 20, .memory_mb = 512, .processes = 32, .disk_mb = 16, .output_kb = 256};

}  // namespace moebius::sandbox
