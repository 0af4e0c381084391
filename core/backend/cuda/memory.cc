#include "core/backend/cuda/memory.h"

#include <cuda_runtime.h>

#include <string>

#include "core/backend/cuda/errors.h"
#include "core/base/memory.h"
#include "core/base/strings.h"

namespace moebius::cuda {

void* TryClaim(GpuMemory place, int64_t bytes) {
  void* memory = nullptr;
  const auto size = static_cast<size_t>(bytes);
  const cudaError_t error = place == GpuMemory::kDevice ? cudaMalloc(&memory, size)
                                                        : cudaHostAlloc(&memory, size, cudaHostAllocMapped);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // it is not the next call's
    return nullptr;
  }
  Ok(error, place == GpuMemory::kDevice ? "cudaMalloc" : "cudaHostAlloc");
  return memory;
}

void Release(GpuMemory place, void* memory) {
  place == GpuMemory::kDevice ? cudaFree(memory) : cudaFreeHost(memory);
}

void* Claim(GpuMemory place, int64_t bytes, const char* what) {
  void* const memory = TryClaim(place, bytes);
  if (memory == nullptr) OutOfMemory(place, bytes, what, 0);
  return memory;
}

void OutOfMemory(GpuMemory place, int64_t bytes, const char* what, int64_t in_use) {
  const auto text = [](int64_t n) { return HumanBytes(static_cast<double>(n)); };
  const Room room = RoomIn(place);
  const bool device = place == GpuMemory::kDevice;
  DeviceFailure(Concat(
      device ? "out of GPU memory" : "out of pinned host memory", ": asked for ", text(bytes), " for ", what,
      "; ", in_use > 0 ? Concat(text(in_use), " are in use here, ") : std::string(), text(room.free), " of ",
      text(room.all), " are free; use smaller microbatches or more recomputation",
      device ? "" : ", or a layout whose rows stay on the GPU (docs/gpu.md, Several ranks)"));
}

Room RoomIn(GpuMemory place) {
  if (place == GpuMemory::kDevice) {
    size_t free = 0, all = 0;
    if (cudaMemGetInfo(&free, &all) != cudaSuccess) return {};
    return {static_cast<int64_t>(free), static_cast<int64_t>(all)};
  }
  const MachineMemory memory = ReadMachineMemory();
  return {memory.available, memory.total};
}

}  // namespace moebius::cuda
