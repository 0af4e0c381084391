// The GPU backend, which lives in a shared object beside the program and is loaded when asked for: a program
// that does not use it starts without its libraries, and runs where there is no driver.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/backend/backend.h"

namespace moebius {

// kDevice: the card's own memory. kHostMapped: pinned host memory that the card reads over the bus, which
// host code may touch between two Synchronize; for tests that share one body with the CPU.
enum class GpuMemory { kDevice, kHostMapped };

struct GpuOptions {
  int rank = 0;  // of this machine: GPUs are taken in turn
  GpuMemory memory = GpuMemory::kDevice;
  bool deterministic = true;  // false: what is faster when sums may run in any order (attention's backward)
  int log_rank = -1;          // LogRank() of who asks: what the shared object says begins with it
};

// kUnavailable: no shared object, no driver, no such device, or one of an unsupported architecture; the
// message says which and what to do.
absl::StatusOr<std::unique_ptr<Backend>> MakeGpuBackend(const GpuOptions& options);

// One thing that is there or missing: driver, libraries, each GPU, links between them.
struct GpuFinding {
  enum class Kind { kGood, kNote, kBad };
  Kind kind;
  std::string what, value;
};
// Empty where the build has no GPU backend.
std::vector<GpuFinding> DescribeGpus();

// What the shared object exports under the name kNewGpuBackend: null, with `error` set, when there is no
// device to use. `build`: kGpuBuild (gpu_build.h, made by CMake), which names the headers that the two share;
// with another one nothing else is called.
inline constexpr char kNewGpuBackend[] = "moebius_new_gpu_backend";
using NewGpuBackend = Backend* (*)(const char* build, const GpuOptions& options, std::string* error);
inline constexpr char kDescribeGpus[] = "moebius_describe_gpus";
using DescribeGpusFunction = void (*)(const char* build, std::vector<GpuFinding>* out);

}  // namespace moebius
