#include "core/backend/cuda/cuda_backend.h"

#include <algorithm>

#include "core/backend/cuda/attention_plans.h"
#include "core/backend/cuda/dense_products.h"
#include "core/backend/cuda/device_link.h"
#include "core/backend/cuda/errors.h"
#include "core/backend/cuda/fp8_products.h"
#include "core/backend/cuda/grouped_products.h"
#include "core/backend/cuda/memory.h"
#include "core/backend/cuda/streams.h"
#include "core/backend/gpu_build.h"
#include "core/base/log.h"
#include "core/base/strings.h"

namespace moebius {

using cuda::Ok;

CudaBackend::CudaBackend(int device, const GpuOptions& options, const cudaDeviceProp& properties)
    : device_(device),
      memory_(options.memory),
      properties_(properties),
      blocks_({.take = [this](int64_t bytes) { return cuda::TryClaim(memory_, bytes); },
               .give = [this](void* memory) { cuda::Release(memory_, memory); },
               .wait = [] { CUDA_OK(cudaDeviceSynchronize()); }}) {
  CUDA_OK(cudaSetDevice(device_));
  link_ = std::make_unique<cuda::CudaLink>(device_);
  exchange_ = std::make_unique<ExchangeThread>(link_.get());
  dense_ = std::make_unique<cuda::DenseProducts>();
  grouped_ = std::make_unique<cuda::GroupedProducts>(properties_);
  fp8_ = std::make_unique<cuda::Fp8Products>(properties_);
  attention_ = std::make_unique<cuda::AttentionPlans>(properties_, options.deterministic);
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(device_);
  cudaDeviceSynchronize();
  exchange_ = nullptr;
  link_ = nullptr;
  for (void* const memory : scratch_) cuda::Release(GpuMemory::kDevice, memory);
}

// Freed blocks are kept and handed out again: work on the rank's one compute stream is in order, so a new
// owner's kernels follow the old owner's. Not to the exchange thread, which is beside that order.
void* CudaBackend::Allocate(int64_t bytes) {
  const int64_t unit = bytes >= (int64_t{1} << 20) ? int64_t{2} << 20 : 512;
  const int64_t size = (std::max<int64_t>(bytes, 1) + unit - 1) / unit * unit;
  CUDA_OK(cudaSetDevice(device_));
  const KeptBlocks::Block block =
      blocks_.Take(size, ExchangeThread::Here() ? KeptBlocks::From::kDevice : KeptBlocks::From::kKeptFirst);
  if (block.memory == nullptr) cuda::OutOfMemory(memory_, size, "tensors", blocks_.bytes());
  if (block.was_kept && memory_ == GpuMemory::kHostMapped) {
    CUDA_OK(cudaDeviceSynchronize());  // host code writes it next
  }
  return block.memory;
}

void CudaBackend::Free(void* memory) {
  if (memory != nullptr) blocks_.Free(memory);
}

void* CudaBackend::Scratch(int64_t bytes) {
  if (scratch_bytes_ < bytes) {
    int64_t size = std::max<int64_t>(bytes + bytes / 4, int64_t{16} << 20);
    void* memory = cuda::TryClaim(GpuMemory::kDevice, size);
    if (memory == nullptr && blocks_.GiveBack()) memory = cuda::TryClaim(GpuMemory::kDevice, size);
    if (memory == nullptr) memory = cuda::TryClaim(GpuMemory::kDevice, size = bytes);  // without a reserve
    if (memory == nullptr) {
      cuda::OutOfMemory(GpuMemory::kDevice, size, "what a kernel keeps between its launches",
                        blocks_.bytes());
    }
    scratch_.push_back(memory);
    scratch_bytes_ = size;
  }
  return scratch_.empty() ? nullptr : scratch_.back();
}

std::string CudaBackend::Name() const { return Concat("cuda (", properties_.name, ")"); }

int64_t CudaBackend::free_bytes() const {
  cudaSetDevice(device_);
  return cuda::RoomIn(memory_).free + blocks_.kept_bytes();
}

std::string CudaBackend::InstructionSet() const {
  return Concat("sm_", properties_.major, properties_.minor);
}

std::unique_ptr<Stream> CudaBackend::NewStream(StreamKind kind) {
  if (kind == StreamKind::kExchange) return exchange_->NewStream();
  return cuda::NewComputeStream(device_);
}
std::unique_ptr<Event> CudaBackend::NewEvent() { return cuda::NewEvent(); }

// A view with gaps between its rows is copied row by row, by the copy engine. Both copies return when the
// host memory may be used again: it is pageable, so the driver stages it.
void CudaBackend::CopyToDevice(Stream& stream, const void* host, TensorView to) {
  if (to.elements() == 0) return;
  const int64_t row = to.cols() * SizeOf(to.dtype);
  if (to.contiguous()) {
    CUDA_OK(cudaMemcpyAsync(to.data, host, to.bytes(), cudaMemcpyDefault, cuda::Raw(stream)));
  } else {
    CUDA_OK(cudaMemcpy2DAsync(to.data, to.stride * SizeOf(to.dtype), host, row, row, to.rows(),
                              cudaMemcpyDefault, cuda::Raw(stream)));
  }
}

void CudaBackend::CopyToHost(Stream& stream, TensorView from, void* host) {
  if (from.elements() == 0) return;
  const int64_t row = from.cols() * SizeOf(from.dtype);
  if (from.contiguous()) {
    CUDA_OK(cudaMemcpyAsync(host, from.data, from.bytes(), cudaMemcpyDefault, cuda::Raw(stream)));
  } else {
    CUDA_OK(cudaMemcpy2DAsync(host, row, from.data, from.stride * SizeOf(from.dtype), row, from.rows(),
                              cudaMemcpyDefault, cuda::Raw(stream)));
  }
}

}  // namespace moebius

using moebius::Concat;

extern "C" __attribute__((visibility("default"))) moebius::Backend* moebius_new_gpu_backend(
    const char* build, const moebius::GpuOptions& options, std::string* error) {
  if (std::string(build) != moebius::kGpuBuild) {
    *error = Concat("libmoebius_cuda.so is of another build (", moebius::kGpuBuild, ", the program is ",
                    build, "): install both from one build");
    return nullptr;
  }
  moebius::SetLogRank(options.log_rank);  // the program's is not seen from here
  int devices = 0, driver = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess || devices == 0) {
    (void)cudaDriverGetVersion(&driver);
    if (driver == 0) {
      *error =
          "no NVIDIA driver on this machine (libcuda.so.1 is missing): install one, 580 or newer, or run on "
          "the CPU";
    } else if (found == cudaErrorInsufficientDriver) {
      *error = Concat("the NVIDIA driver of this machine is too old: it is made for CUDA ", driver / 1000,
                      ".", driver % 1000 / 10, "; install driver 580 or newer, or run on the CPU");
    } else {
      *error = Concat("no GPU can be used: ", cudaGetErrorString(found),
                      "; look at nvidia-smi and CUDA_VISIBLE_DEVICES");
    }
    return nullptr;
  }
  const int device = options.rank % devices;
  cudaDeviceProp properties;
  if (const cudaError_t status = cudaGetDeviceProperties(&properties, device); status != cudaSuccess) {
    *error = Concat("GPU ", device, ": ", cudaGetErrorString(status));
    return nullptr;
  }
  if (properties.major < 8) {
    *error = Concat("GPU ", device, " (", properties.name, ") has compute capability ", properties.major, ".",
                    properties.minor, "; moebius needs 8.0 (A100) or newer");
    return nullptr;
  }
  return new moebius::CudaBackend(device, options, properties);
}
