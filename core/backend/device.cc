#include "core/backend/device.h"

#include "core/backend/gpu.h"
#include "core/base/status.h"

namespace moebius {

std::optional<Device> DeviceFromName(std::string_view name) {
  if (name == "cpu") return Device::kCpu;
  if (name == "cuda") return Device::kCuda;
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const DeviceOptions& options) {
  if (options.device == Device::kCpu) {
    return MakeCpuBackend({.threads = options.threads, .batch_invariant = options.batch_invariant});
  }
  if (options.batch_invariant) {
    return UsageError(
        "device cuda has no batch-invariant kernels, so the sampler's log-probabilities cannot equal the "
        "trainer's bit for bit there; use the CPU, or sample in fast mode and correct for the difference");
  }
  return MakeGpuBackend({.rank = options.rank,
                         .memory = options.host_rows ? GpuMemory::kHostMapped : GpuMemory::kDevice,
                         .deterministic = options.deterministic});
}

}  // namespace moebius
