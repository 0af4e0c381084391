#include "core/backend/device.h"

#include "core/backend/gpu.h"

namespace moebius {

std::optional<Device> DeviceFromName(std::string_view name) {
  if (name == "cpu") return Device::kCpu;
  if (name == "cuda") return Device::kCuda;
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const DeviceOptions& options) {
  if (options.device == Device::kCpu) return MakeCpuBackend({.threads = options.threads});
  return MakeGpuBackend({.rank = options.rank,
                         .memory = options.host_rows ? GpuMemory::kHostMapped : GpuMemory::kDevice,
                         .deterministic = options.deterministic});
}

}  // namespace moebius
