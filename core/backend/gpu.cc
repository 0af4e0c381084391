#include "core/backend/gpu.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>

#include "core/backend/gpu_build.h"
#include "core/base/log.h"
#include "core/base/status.h"
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

template <typename Function>
absl::StatusOr<Function> Symbol(const char* name) {
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
    return absl::UnavailableError(
        Concat("the GPU backend cannot be loaded: ", why ? why : path,
               "; install NVIDIA's library of that name, or set LD_LIBRARY_PATH to where it is"));
  }
  const auto function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) return absl::UnavailableError(Concat(path, " is not a GPU backend of moebius"));
  return function;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeGpuBackend(const GpuOptions& options) {
  ASSIGN_OR_RETURN(const NewGpuBackend make, Symbol<NewGpuBackend>(kNewGpuBackend));
  std::string error;
  GpuOptions with_rank = options;
  with_rank.log_rank = LogRank();
  std::unique_ptr<Backend> backend(make(kGpuBuild, with_rank, &error));
  if (backend == nullptr) return absl::UnavailableError(error);
  return backend;
}

std::vector<GpuFinding> DescribeGpus() {
  std::vector<GpuFinding> out;
  if (Library().empty()) return out;
  const auto describe = Symbol<DescribeGpusFunction>(kDescribeGpus);
  if (describe.ok()) {
    (*describe)(kGpuBuild, &out);
  } else {
    out.push_back({GpuFinding::Kind::kBad, "gpu backend", std::string(describe.status().message())});
  }
  return out;
}

}  // namespace moebius
