// DeviceLink on CUDA: a stream of its own, ahead of the compute streams, and memory that is kept.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "core/backend/device_link.h"

namespace moebius::cuda {

// Bytes from one place to another, of the kernel's list.
struct Stretch {
  char* to;
  const char* from;
  int64_t bytes;
};
// device_link.cu. Whatever the addresses; memory that this device reaches.
void CopyStretches(cudaStream_t stream, const std::vector<Stretch>& stretches);
void ReduceInRankOrder(cudaStream_t stream, DType dtype, ReduceOp op,
                       const std::vector<const void*>& contributions, int64_t count, void* out);

class CudaLink final : public DeviceLink {
 public:
  explicit CudaLink(int device);
  ~CudaLink() override;  // after the last exchange

  bool Holds(const void* memory) const override;
  std::unique_ptr<Work> Copy(const std::vector<MemoryPiece>& from,
                             const std::vector<MemoryPiece>& to) override;
  std::unique_ptr<Work> Reduce(DType dtype, ReduceOp op, const std::vector<const void*>& contributions,
                               int64_t count, void* out) override;
  Block Take(Place place, int64_t bytes) override;
  void Give(const Block& block) override;
  // nccl.cc
  std::string channels() const override;
  std::string NewChannelId() override;
  std::unique_ptr<DeviceChannel> OpenChannel(const std::string& id, bool sends, int ranks) override;

 private:
  // Whether kernels on this device reach the memory; asks for the way to another device's when it is first
  // seen, so that a process whose ranks have one card each never touches the others.
  bool Reaches(const void* memory);

  const int device_;
  cudaStream_t stream_ = nullptr;
  std::map<int, bool> peers_;  // of the exchange thread: other devices, and whether their memory is reached
  std::mutex mutex_;
  std::map<std::pair<Place, int64_t>, std::vector<void*>> free_;
  std::vector<Block> blocks_;  // all
};

// What `stream` has been given until now.
std::unique_ptr<DeviceLink::Work> WorkOn(cudaStream_t stream);

}  // namespace moebius::cuda
