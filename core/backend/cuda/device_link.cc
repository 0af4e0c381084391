#include "core/backend/cuda/device_link.h"

#include <algorithm>
#include <bit>

#include "core/backend/cuda/errors.h"
#include "core/backend/cuda/memory.h"
#include "core/base/check.h"

namespace moebius::cuda {
namespace {

// Fewer stretches than this go one by one to the copy engines, which leave the multiprocessors alone.
constexpr size_t kCopyEngineStretches = 4;
constexpr int64_t kLargeBlock = int64_t{64} << 20;

class EventWork final : public DeviceLink::Work {
 public:
  explicit EventWork(cudaStream_t stream) {
    CUDA_OK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    CUDA_OK(cudaEventRecord(event_, stream));
  }
  ~EventWork() override { cudaEventDestroy(event_); }
  bool Done() override {
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaErrorNotReady) return false;
    Ok(state, "an exchange's copy or sum");
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

cudaPointerAttributes PlaceOf(const void* memory) {
  cudaPointerAttributes attributes;
  CUDA_OK(cudaPointerGetAttributes(&attributes, memory));
  return attributes;
}

// Where the bytes of both lists are cut, by either.
std::vector<Stretch> Stretches(const std::vector<MemoryPiece>& from, const std::vector<MemoryPiece>& to) {
  std::vector<Stretch> out;
  size_t i = 0;
  int64_t used = 0;  // bytes of from[i]
  for (const MemoryPiece& piece : to) {
    for (int64_t filled = 0; filled < piece.bytes;) {
      CHECK_LT(i, from.size());
      if (used == from[i].bytes) {
        ++i;
        used = 0;
        continue;
      }
      const int64_t n = std::min(piece.bytes - filled, from[i].bytes - used);
      out.push_back(
          {static_cast<char*>(piece.data) + filled, static_cast<const char*>(from[i].data) + used, n});
      filled += n;
      used += n;
    }
  }
  return out;
}

// Powers of two, and whole large blocks: few sizes, so that a free one is found.
int64_t BlockBytes(int64_t bytes) {
  if (bytes > kLargeBlock) return (bytes + kLargeBlock - 1) / kLargeBlock * kLargeBlock;
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(bytes, 4096))));
}

}  // namespace

std::unique_ptr<DeviceLink::Work> WorkOn(cudaStream_t stream) { return std::make_unique<EventWork>(stream); }

CudaLink::CudaLink(int device) : device_(device) {
  CUDA_OK(cudaSetDevice(device_));
  int least = 0, greatest = 0;
  CUDA_OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  CUDA_OK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
}

CudaLink::~CudaLink() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
  for (const Block& block : blocks_) {
    block.place == Place::kHost ? cudaFreeHost(block.data) : cudaFree(block.data);
  }
}

bool CudaLink::Holds(const void* memory) const {
  if (memory == nullptr) return false;
  CUDA_OK(cudaSetDevice(device_));  // else a thread's first call takes a context on device 0
  return PlaceOf(memory).type == cudaMemoryTypeDevice;
}

bool CudaLink::Reaches(const void* memory) {
  const cudaPointerAttributes place = PlaceOf(memory);
  if (place.type != cudaMemoryTypeDevice) return place.type == cudaMemoryTypeHost;
  if (place.device == device_) return true;
  const auto [peer, is_new] = peers_.try_emplace(place.device, false);
  if (is_new) {
    int can = 0;
    CUDA_OK(cudaDeviceCanAccessPeer(&can, device_, place.device));
    if (can != 0) {
      // Without it the driver takes even its copies through the host.
      const cudaError_t error = cudaDeviceEnablePeerAccess(place.device, 0);
      (void)cudaGetLastError();
      peer->second = error == cudaSuccess || error == cudaErrorPeerAccessAlreadyEnabled;
    }
  }
  return peer->second;
}

std::unique_ptr<DeviceLink::Work> CudaLink::Copy(const std::vector<MemoryPiece>& from,
                                                 const std::vector<MemoryPiece>& to) {
  CUDA_OK(cudaSetDevice(device_));
  const std::vector<Stretch> stretches = Stretches(from, to);
  const bool reached = !stretches.empty() && Reaches(stretches[0].from) && Reaches(stretches[0].to);
  if (reached && stretches.size() > kCopyEngineStretches) {
    CopyStretches(stream_, stretches);
  } else {
    for (const Stretch& s : stretches) {
      CUDA_OK(cudaMemcpyAsync(s.to, s.from, s.bytes, cudaMemcpyDefault, stream_));
    }
  }
  return WorkOn(stream_);
}

std::unique_ptr<DeviceLink::Work> CudaLink::Reduce(DType dtype, ReduceOp op,
                                                   const std::vector<const void*>& contributions,
                                                   int64_t count, void* out) {
  CUDA_OK(cudaSetDevice(device_));
  if (count > 0) ReduceInRankOrder(stream_, dtype, op, contributions, count, out);
  return WorkOn(stream_);
}

DeviceLink::Block CudaLink::Take(Place place, int64_t bytes) {
  const int64_t size = BlockBytes(bytes);
  std::lock_guard lock(mutex_);
  // Routing changes sizes from step to step; much larger ones are left for who needs them.
  for (auto found = free_.lower_bound({place, size});
       found != free_.end() && found->first.first == place && found->first.second <= 2 * size; ++found) {
    if (found->second.empty()) continue;
    void* const data = found->second.back();
    found->second.pop_back();
    return {data, found->first.second, place};
  }
  CUDA_OK(cudaSetDevice(device_));
  const GpuMemory memory = place == Place::kHost ? GpuMemory::kHostMapped : GpuMemory::kDevice;
  blocks_.push_back({Claim(memory, size, "an exchange between ranks"), size, place});
  return blocks_.back();
}

void CudaLink::Give(const Block& block) {
  std::lock_guard lock(mutex_);
  free_[{block.place, block.bytes}].push_back(block.data);
}

}  // namespace moebius::cuda
