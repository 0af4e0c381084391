// What `moebius doctor` says of the GPUs: versions, devices, how they are linked.
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>
#include <dlfcn.h>

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "core/backend/cuda/nccl.h"
#include "core/backend/gpu.h"
#include "core/backend/gpu_build.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// CUDA counts 13000 as 13.0, cuDNN 91900 as 9.19.0, cuBLAS 130100 as 13.1.0.
std::string CudaVersion(int v) { return Concat(v / 1000, ".", v % 1000 / 10); }
std::string LibraryVersion(size_t v) { return Concat(v / 10000, ".", v / 100 % 100, ".", v % 100); }

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "32.0 GT/s PCIe x16", as the kernel says; "" where it does not.
std::string Bus(int device) {
  char id[32] = "";
  if (cudaDeviceGetPCIBusId(id, sizeof id, device) != cudaSuccess) return "";
  std::string folder = id;
  for (char& c : folder) c = static_cast<char>(std::tolower(c));
  folder = "/sys/bus/pci/devices/" + folder;
  const std::string speed = FirstLine(folder + "/current_link_speed"),
                    width = FirstLine(folder + "/current_link_width");
  return speed.empty() || width.empty() ? "" : Concat(speed, " x", width);
}

// How many NVLinks of a GPU are up, by the driver's management library; nothing where that cannot say.
std::optional<int> NvLinks(int device) {
  static void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::nullopt;
  // Of nvml.h, which the CUDA toolkit of a distribution may lack. 0: done.
  const auto init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
  const auto find =
      reinterpret_cast<int (*)(const char*, void**)>(dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
  const auto link_state =
      reinterpret_cast<int (*)(void*, unsigned, unsigned*)>(dlsym(library, "nvmlDeviceGetNvLinkState"));
  char id[32] = "";
  void* handle = nullptr;
  if (init == nullptr || find == nullptr || link_state == nullptr || init() != 0 ||
      cudaDeviceGetPCIBusId(id, sizeof id, device) != cudaSuccess || find(id, &handle) != 0) {
    return std::nullopt;
  }
  constexpr unsigned kMostLinks = 18;  // NVML_NVLINK_MAX_LINKS
  int up = 0;
  for (unsigned link = 0; link < kMostLinks; ++link) {
    unsigned active = 0;
    if (link_state(handle, link, &active) == 0) up += active != 0;
  }
  return up;
}

// Which GPUs reach each other's memory, and over what.
std::string Links(int devices) {
  int direct = 0, pairs = 0;
  for (int a = 0; a < devices; ++a) {
    for (int b = 0; b < devices; ++b) {
      if (a == b) continue;
      int can = 0;
      ++pairs;
      if (cudaDeviceCanAccessPeer(&can, a, b) == cudaSuccess) direct += can;
    }
  }
  std::string nvlinks;
  for (int d = 0; d < devices; ++d) {
    const std::optional<int> up = NvLinks(d);
    if (up) nvlinks += Concat(nvlinks.empty() ? "; NVLinks that are up, by GPU: " : ", ", *up);
  }
  if (nvlinks.empty()) nvlinks = " (NVLink or PCIe: libnvidia-ml.so.1 does not say)";
  if (direct == 0) return "no GPU reaches another's memory: traffic goes through the host" + nvlinks;
  if (direct == pairs) return "every GPU reaches every other's memory directly" + nvlinks;
  return Concat(direct, " of ", pairs, " ordered pairs of GPUs reach each other's memory directly", nvlinks);
}

}  // namespace
}  // namespace moebius

extern "C" __attribute__((visibility("default"))) void moebius_describe_gpus(
    const char* build, std::vector<moebius::GpuFinding>* out) {
  using moebius::Concat;
  using Kind = moebius::GpuFinding::Kind;
  const auto add = [&](Kind kind, const char* what, std::string value) {
    out->push_back({kind, what, std::move(value)});
  };
  if (std::string(build) != moebius::kGpuBuild) {
    return add(Kind::kBad, "gpu backend",
               "libmoebius_cuda.so is of another build: install both from one build");
  }
  int driver = 0, runtime = 0, devices = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  add(Kind::kGood, "libraries",
      Concat("CUDA ", moebius::CudaVersion(runtime), ", cuBLAS ",
             moebius::LibraryVersion(cublasLtGetVersion()), ", cuDNN ",
             moebius::LibraryVersion(cudnnGetVersion())));
  if (const moebius::cuda::Nccl* nccl = moebius::cuda::LoadNccl()) {
    int version = 0;
    (void)nccl->version(&version);
    add(Kind::kGood, "nccl", moebius::LibraryVersion(version));
  } else {
    add(Kind::kNote, "nccl",
        "none (libnccl.so.2): processes exchange GPU memory through the host; install NVIDIA's libnccl2");
  }
  if (driver == 0) {
    return add(
        Kind::kBad, "driver",
        "none (libcuda.so.1 is missing): install NVIDIA's driver, 580 or newer; the CPU works without");
  }
  add(driver >= runtime / 1000 * 1000 ? Kind::kGood : Kind::kBad, "driver",
      Concat("for CUDA ", moebius::CudaVersion(driver),
             driver >= runtime / 1000 * 1000 ? "" : "; older than the libraries: install 580 or newer"));
  if (const cudaError_t status = cudaGetDeviceCount(&devices); status != cudaSuccess || devices == 0) {
    return add(Kind::kBad, "gpus",
               Concat("none can be used: ", cudaGetErrorString(status),
                      "; look at nvidia-smi and CUDA_VISIBLE_DEVICES"));
  }
  std::string first;
  for (int d = 0; d < devices; ++d) {
    cudaDeviceProp p;
    if (const cudaError_t status = cudaGetDeviceProperties(&p, d); status != cudaSuccess) {
      add(Kind::kBad, "gpu", Concat(d, ": ", cudaGetErrorString(status)));
      continue;
    }
    size_t left = 0, all = 0;
    const bool open = cudaSetDevice(d) == cudaSuccess && cudaMemGetInfo(&left, &all) == cudaSuccess;
    const std::string bus = moebius::Bus(d);
    std::string line =
        Concat(d, ": ", p.name, ", compute capability ", p.major, ".", p.minor, ", ", p.multiProcessorCount,
               " multiprocessors, ", moebius::HumanBytes(static_cast<double>(open ? left : p.totalGlobalMem)),
               open ? " free of " : " in all, of ",
               moebius::HumanBytes(static_cast<double>(p.totalGlobalMem)), bus.empty() ? "" : ", ", bus);
    if (p.major < 8) {
      add(Kind::kBad, "gpu", line + "; moebius needs 8.0 (A100) or newer");
    } else if (p.major != 9) {
      add(Kind::kNote, "gpu", line + "; runs without Hopper's kernels, several times slower on experts");
    } else {
      add(Kind::kGood, "gpu", line);
    }
    if (d == 0) first = p.name;
    if (first != p.name)
      add(Kind::kNote, "gpus", "of different kinds: the ranks of a run need one kind (CUDA_VISIBLE_DEVICES)");
  }
  if (devices > 1) add(Kind::kGood, "links", moebius::Links(devices));
}
