#include "core/backend/cuda/streams.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/errors.h"
#include "core/backend/exchange_thread.h"
#include "core/backend/host_event.h"
#include "core/base/check.h"

namespace moebius::cuda {
namespace {

// The two driver calls that the runtime does not have.
struct StreamMemory {
  CUresult (*write)(CUstream, CUdeviceptr, cuuint32_t, unsigned) = nullptr;
  CUresult (*wait)(CUstream, CUdeviceptr, cuuint32_t, unsigned) = nullptr;

  StreamMemory() {
    const auto find = [](const char* name) {
      void* function = nullptr;
      cudaDriverEntryPointQueryResult found;
      CUDA_OK(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found));
      if (found != cudaDriverEntryPointSuccess) DeviceFailure(std::string("the driver lacks ") + name);
      return function;
    };
    write = reinterpret_cast<decltype(write)>(find("cuStreamWriteValue32"));
    wait = reinterpret_cast<decltype(wait)>(find("cuStreamWaitValue32"));
  }
};
const StreamMemory& Driver() {
  static const StreamMemory driver;
  return driver;
}
void DriverOk(CUresult result, const char* call) {
  if (result != CUDA_SUCCESS) DeviceFailure("driver error " + std::to_string(result) + " from " + call);
}

// A counter in pinned memory. Counts go on from event to event, cyclically, so that what still waits for a
// count of an earlier event finds it passed.
struct Flag {
  std::atomic<uint32_t>* counter = nullptr;
  uint32_t last = 0;  // asked for
  bool Reached(uint32_t count) const {
    return static_cast<int32_t>(counter->load(std::memory_order_acquire) - count) >= 0;
  }
};

// Flags of all events of the process, kept: to allocate pinned memory, and to free it, waits for the device.
class Flags {
 public:
  Flag Take() {
    std::lock_guard lock(mutex_);
    const auto done =
        std::find_if(given_.begin(), given_.end(), [](const Flag& f) { return f.Reached(f.last); });
    if (done == given_.end()) return New();
    const Flag flag = *done;
    *done = given_.back();
    given_.pop_back();
    return flag;
  }
  // What was asked of it may still be written.
  void Give(const Flag& flag) {
    std::lock_guard lock(mutex_);
    given_.push_back(flag);
  }

 private:
  static constexpr int kLine = 64, kBlock = 4096;  // bytes: flags on lines of their own

  Flag New() {
    if (used_ == kBlock) {
      CUDA_OK(cudaHostAlloc(reinterpret_cast<void**>(&block_), kBlock,
                            cudaHostAllocMapped | cudaHostAllocPortable));
      used_ = 0;
    }
    return {new (block_ + std::exchange(used_, used_ + kLine)) std::atomic<uint32_t>(0), 0};
  }

  std::mutex mutex_;
  std::vector<Flag> given_;
  char* block_ = nullptr;
  int used_ = kBlock;
};
Flags& AllFlags() {
  static Flags& flags = *new Flags();  // events of static life may outlive it otherwise
  return flags;
}

// Record number n of the event is count first + n of its flag, as cuStreamWaitValue32 compares it.
class CudaEvent final : public HostEvent {
 public:
  CudaEvent() : flag_(AllFlags().Take()), first_(flag_.last) {}
  ~CudaEvent() override {
    flag_.last = Count(Latest());  // behind the lock of a Finish that is not over yet
    AllFlags().Give(flag_);
  }

  bool Poll(int64_t number, Stream* stream) override {
    return Reached(number) || HostEvent::Poll(number, stream);
  }

  bool Done() override { return Reached(Latest()); }

  void RecordOn(cudaStream_t stream) {
    const int64_t number = Issue();
    of_device_ = number;
    DriverOk(Driver().write(stream, Address(), Count(number), CU_STREAM_WRITE_VALUE_DEFAULT),
             "cuStreamWriteValue32");
  }
  void WaitOn(cudaStream_t stream) {
    const int64_t number = Latest();
    if (number == 0 || Reached(number)) return;
    if (number != of_device_) return WaitFor(number);  // an exchange's: the caller waits
    DriverOk(Driver().wait(stream, Address(), Count(number), CU_STREAM_WAIT_VALUE_GEQ),
             "cuStreamWaitValue32");
  }

 private:
  void Show(int64_t number) override { flag_.counter->store(Count(number), std::memory_order_release); }
  uint32_t Count(int64_t number) const { return first_ + static_cast<uint32_t>(number); }
  bool Reached(int64_t number) const { return flag_.Reached(Count(number)); }
  CUdeviceptr Address() const {
    void* device = nullptr;
    CUDA_OK(cudaHostGetDevicePointer(&device, flag_.counter, 0));
    return reinterpret_cast<CUdeviceptr>(device);
  }

  Flag flag_;
  const uint32_t first_;
  std::atomic<int64_t> of_device_ = 0;  // the latest record by a compute stream
};

class ComputeStream final : public Stream {
 public:
  explicit ComputeStream(int device) : device_(device) {
    CUDA_OK(cudaSetDevice(device));
    CUDA_OK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~ComputeStream() override {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }

  StreamKind kind() const override { return StreamKind::kCompute; }
  // Host work on a compute stream runs in the caller's thread, which waits for the stream first.
  void Enqueue(std::function<void()> work) override {
    Synchronize();
    work();
  }
  void EnqueuePolled(std::function<bool()> poll) override {
    Synchronize();
    using Clock = std::chrono::steady_clock;
    for (const Clock::time_point begin = Clock::now(); !poll();) {
      const Clock::duration idle = Clock::now() - begin;
      if (idle > kPollSpin) std::this_thread::sleep_for(PollPause(idle));
    }
  }
  void Wake() override {}  // its sleeps are short
  void Record(Event& event) override { static_cast<CudaEvent&>(event).RecordOn(stream_); }
  void Wait(Event& event) override { static_cast<CudaEvent&>(event).WaitOn(stream_); }
  void Synchronize() override { CUDA_OK(cudaStreamSynchronize(stream_)); }

  cudaStream_t raw() const { return stream_; }
  int device() const { return device_; }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

cudaStream_t Raw(Stream& stream) {
  CHECK(stream.kind() == StreamKind::kCompute) << "kernels run on compute streams";
  return static_cast<ComputeStream&>(stream).raw();
}

std::unique_ptr<Stream> NewComputeStream(int device) { return std::make_unique<ComputeStream>(device); }
std::unique_ptr<Event> NewEvent() { return std::make_unique<CudaEvent>(); }

}  // namespace moebius::cuda
