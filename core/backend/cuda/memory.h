// Memory of the device and pinned memory of the host, and what is said when there is none left.
#pragma once

#include <cstdint>

#include "core/backend/gpu.h"

namespace moebius::cuda {

// Of the current device, or of the host where kernels read it. Null: there is none left.
void* TryClaim(GpuMemory place, int64_t bytes);
void Release(GpuMemory place, void* memory);
// The same, or OutOfMemory.
void* Claim(GpuMemory place, int64_t bytes, const char* what);

// Ends the process, with the numbers. `in_use`: what this rank has already, 0 where nobody counts it.
[[noreturn]] void OutOfMemory(GpuMemory place, int64_t bytes, const char* what, int64_t in_use);

struct Room {
  int64_t free = 0;  // 0: nobody knows
  int64_t all = 0;
};
Room RoomIn(GpuMemory place);

}  // namespace moebius::cuda
