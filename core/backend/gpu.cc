#include "core/backend/gpu.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>

#include "core/base/strings.h"

namespace moebius {
namespace {

// Beside the program, or in ../lib from it (a bundle).
std::string Library() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const char* place : {"libmoebius_cuda.so", "../lib/libmoebius_cuda.so", "../libmoebius_cuda.so"}) {
    const std::filesystem::path path = program.parent_path() / place;
    if (std::filesystem::exists(path, error)) return path;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeGpuBackend(const GpuOptions& options) {
  const std::string path = Library();
  if (path.empty()) {
    return absl::UnavailableError(
        "this build has no GPU backend (no libmoebius_cuda.so beside the program): build the preset `cuda`, "
        "or run on the CPU");
  }
  // Never closed: its libraries keep threads and exit handlers.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return absl::UnavailableError(Concat("the GPU backend cannot be loaded: ", why ? why : path,
                                         "; `moebius doctor` says what is missing"));
  }
  const auto make = reinterpret_cast<NewGpuBackend>(dlsym(library, kNewGpuBackend));
  if (make == nullptr) return absl::UnavailableError(Concat(path, " is not a GPU backend of moebius"));
  std::string error;
  std::unique_ptr<Backend> backend(make(kGpuBuild, options, &error));
  if (backend == nullptr) return absl::UnavailableError(error);
  return backend;
}

}  // namespace moebius
