// Channels between the devices of two processes: an NCCL communicator of two ranks, the sender being rank 0.
// Non-blocking: opening and launching go on in NCCL's own threads, and ncclCommGetAsyncError tells when the
// next call may be made, or that the peer is lost.
#include "core/backend/cuda/nccl.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/backend/cuda/device_link.h"
#include "core/backend/cuda/errors.h"
#include "core/base/check.h"
#include "core/base/strings.h"

namespace moebius::cuda {
namespace {

// Blocks of one transfer. A rank has a channel to and from each peer; all may run at once, and one that finds
// no room waits for those that run, whose peers may wait for it: together they leave half of the card.
constexpr int kMostBlocks = 8;
int BlocksOf(int device, int ranks) {
  int processors = 0;
  CUDA_OK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return std::clamp(processors / (4 * std::max(1, ranks - 1)), 1, kMostBlocks);
}

class NcclChannel final : public DeviceChannel {
 public:
  NcclChannel(const Nccl& nccl, int device, const std::string& id, bool sends, int ranks)
      : nccl_(nccl), device_(device), sends_(sends) {
    CUDA_OK(cudaSetDevice(device_));
    int least = 0, greatest = 0;
    CUDA_OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_OK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
    ncclUniqueId unique;
    CHECK_EQ(id.size(), sizeof unique);
    std::memcpy(&unique, id.data(), sizeof unique);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.maxCTAs = BlocksOf(device_, ranks);
    Heed(nccl_.init(&comm_, 2, unique, sends ? 0 : 1, &config), "ncclCommInitRankConfig");
  }
  ~NcclChannel() override {
    Abort();  // nothing is open: this frees without waiting for the peer
    cudaStreamDestroy(stream_);
  }

  bool Ready() override {
    if (!status_.ok() || comm_ == nullptr) return false;
    ncclResult_t state = ncclSuccess;
    Heed(nccl_.async_error(comm_, &state), "ncclCommGetAsyncError");
    Heed(state, "an NCCL channel");
    return status_.ok() && state == ncclSuccess;
  }

  std::unique_ptr<DeviceLink::Work> Transfer(const MemoryPiece& piece) override {
    CUDA_OK(cudaSetDevice(device_));
    const size_t bytes = static_cast<size_t>(piece.bytes);
    if (sends_) {
      Heed(nccl_.send(piece.data, bytes, ncclInt8, 1, comm_, stream_), "ncclSend");
    } else {
      Heed(nccl_.receive(piece.data, bytes, ncclInt8, 0, comm_, stream_), "ncclRecv");
    }
    return std::make_unique<Transferred>(*this);
  }

  absl::Status status() const override { return status_; }

  void Abort() override {
    if (comm_ == nullptr) return;
    cudaSetDevice(device_);
    (void)nccl_.abort(comm_);
    comm_ = nullptr;
  }

 private:
  // Done once NCCL has launched it and the stream has passed it.
  class Transferred final : public DeviceLink::Work {
   public:
    explicit Transferred(NcclChannel& channel) : channel_(channel) {}
    bool Done() override {
      if (event_ == nullptr) {
        if (!channel_.Ready()) return false;
        CUDA_OK(cudaSetDevice(channel_.device_));
        event_ = WorkOn(channel_.stream_);
      }
      if (event_->Done()) return true;
      (void)channel_.Ready();  // a lost peer shows there
      return false;
    }

   private:
    NcclChannel& channel_;
    std::unique_ptr<DeviceLink::Work> event_;
  };

  void Heed(ncclResult_t result, const char* what) {
    if (result == ncclSuccess || result == ncclInProgress || !status_.ok()) return;
    status_ = absl::UnavailableError(
        Concat(what, ": ", nccl_.error_text(result), ": ", comm_ != nullptr ? nccl_.last_error(comm_) : ""));
  }

  const Nccl& nccl_;
  const int device_;
  const bool sends_;
  cudaStream_t stream_ = nullptr;
  ncclComm_t comm_ = nullptr;
  absl::Status status_;
};

}  // namespace

const Nccl* LoadNccl() {
  static const Nccl* const loaded = []() -> const Nccl* {
    void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nullptr;
    static Nccl nccl;
    bool all = true;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      all = all && function != nullptr;
    };
    find(nccl.version, "ncclGetVersion");
    find(nccl.unique_id, "ncclGetUniqueId");
    find(nccl.init, "ncclCommInitRankConfig");
    find(nccl.async_error, "ncclCommGetAsyncError");
    find(nccl.abort, "ncclCommAbort");
    find(nccl.send, "ncclSend");
    find(nccl.receive, "ncclRecv");
    find(nccl.error_text, "ncclGetErrorString");
    find(nccl.last_error, "ncclGetLastError");
    return all ? &nccl : nullptr;
  }();
  return loaded;
}

// MOEBIUS_NCCL=0: messages go through the host instead.
std::string CudaLink::channels() const {
  const char* wanted = std::getenv("MOEBIUS_NCCL");
  if ((wanted != nullptr && std::string(wanted) == "0") || LoadNccl() == nullptr) return "";
  int version = 0;
  (void)LoadNccl()->version(&version);
  return Concat("NCCL ", version / 10000, ".", version / 100 % 100, ".", version % 100);
}

std::string CudaLink::NewChannelId() {
  ncclUniqueId id;
  if (const ncclResult_t result = LoadNccl()->unique_id(&id); result != ncclSuccess) {
    DeviceFailure(Concat("ncclGetUniqueId: ", LoadNccl()->error_text(result)));
  }
  return std::string(reinterpret_cast<const char*>(&id), sizeof id);
}

std::unique_ptr<DeviceChannel> CudaLink::OpenChannel(const std::string& id, bool sends, int ranks) {
  return std::make_unique<NcclChannel>(*LoadNccl(), device_, id, sends, ranks);
}

}  // namespace moebius::cuda
