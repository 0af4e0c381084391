// Which backend a run computes on: the choice that recipes (device: CUDA) and flags (--device cuda) make.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/backend/backend.h"

namespace moebius {

enum class Device { kCpu, kCuda };
std::optional<Device> DeviceFromName(std::string_view name);  // "cpu", "cuda"

struct DeviceOptions {
  Device device = Device::kCpu;
  int threads = 0;  // of the CPU backend; 0: the cores this process may use
  int rank = 0;     // ranks of one machine take its GPUs in turn
  // The same bits each time. The CPU and most kernels know no other way; false: attention's backward on a GPU
  // is faster and its last bits vary.
  bool deterministic = true;
  // Backend::batch_invariant, which exact generation needs; on the CPU alone.
  bool batch_invariant = false;
  // Host code works on rows that ranks exchange: on a GPU all memory is then pinned host memory that kernels
  // read over the bus, which is right and slow.
  bool host_rows = false;
};

// kUnavailable, with what to do, where a GPU is asked for and cannot be used; UsageError for a GPU that is to
// be batch-invariant.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const DeviceOptions& options);

}  // namespace moebius
