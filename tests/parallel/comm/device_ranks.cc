#include "tests/parallel/comm/device_ranks.h"

#include <mutex>
#include <utility>

namespace moebius {
namespace {

class GpuTestDevice final : public TestDevice {
 public:
  explicit GpuTestDevice(Backend& backend)
      : backend_(backend), stream_(backend.NewStream(StreamKind::kCompute)) {}
  void* Allocate(int64_t bytes) override { return backend_.Allocate(bytes); }
  void Free(void* memory) override { backend_.Free(memory); }
  void CopyIn(const void* host, void* device, int64_t bytes) override {
    std::lock_guard lock(mutex_);
    backend_.CopyToDevice(*stream_, host, TensorView(device, DType::kU8, {bytes}));
    stream_->Synchronize();
  }
  void CopyOut(const void* device, void* host, int64_t bytes) override {
    std::lock_guard lock(mutex_);
    backend_.CopyToHost(*stream_, TensorView(const_cast<void*>(device), DType::kU8, {bytes}), host);
    stream_->Synchronize();
  }

 private:
  Backend& backend_;
  std::mutex mutex_;
  std::unique_ptr<Stream> stream_;
};

// Host memory and its place on the device, at an address that is misaligned alike.
class Mirror {
 public:
  Mirror(TestDevice& device, void* host, int64_t bytes)
      : device_(device), host_(static_cast<char*>(host)), bytes_(bytes) {
    memory_ = static_cast<char*>(device_.Allocate(bytes + kAlign));
    at_ = memory_ + reinterpret_cast<uintptr_t>(host) % kAlign;
  }
  ~Mirror() { device_.Free(memory_); }
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;

  void In() const { device_.CopyIn(host_, at_, bytes_); }
  void Out() const { device_.CopyOut(at_, host_, bytes_); }
  bool Covers(const void* host) const {
    return host_ <= static_cast<const char*>(host) && static_cast<const char*>(host) < host_ + bytes_;
  }
  TensorView Of(TensorView x) const {
    x.data = at_ + (static_cast<char*>(x.data) - host_);
    return x;
  }
  MemoryPiece piece() const { return {at_, bytes_}; }

 private:
  static constexpr int64_t kAlign = 16;
  TestDevice& device_;
  char* host_;
  int64_t bytes_;
  char *memory_, *at_;
};

class DeviceCommunicator final : public Communicator {
 public:
  DeviceCommunicator(Communicator* inner, std::unique_ptr<Communicator> owned, TestDevice& device)
      : inner_(inner), owned_(std::move(owned)), device_(device) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }
  const std::vector<int>& world_ranks() const override { return inner_->world_ranks(); }
  absl::Status status() const override { return inner_->status(); }

  void Send(Stream& stream, Purpose purpose, int to, int tag, TensorView x) override {
    On(stream, x, [&](TensorView there) { inner_->Send(stream, purpose, to, tag, there); });
  }
  void Recv(Stream& stream, Purpose purpose, int from, int tag, TensorView x) override {
    On(stream, x, [&](TensorView there) { inner_->Recv(stream, purpose, from, tag, there); });
  }
  void AllReduce(Stream& stream, Purpose purpose, TensorView x, ReduceOp op) override {
    On(stream, x, [&](TensorView there) { inner_->AllReduce(stream, purpose, there, op); });
  }
  void ReduceScatterV(Stream& stream, Purpose purpose, TensorView x, const std::vector<int64_t>& counts,
                      TensorView mine) override {
    On(stream, x, mine,
       [&](TensorView all, TensorView part) { inner_->ReduceScatterV(stream, purpose, all, counts, part); });
  }
  void AllGatherV(Stream& stream, Purpose purpose, TensorView mine, const std::vector<int64_t>& counts,
                  TensorView all) override {
    On(stream, all, mine,
       [&](TensorView whole, TensorView part) { inner_->AllGatherV(stream, purpose, part, counts, whole); });
  }
  void AllToAllV(Stream& stream, Purpose purpose, std::function<PeerPieces()> pieces) override {
    auto received = std::make_shared<std::vector<std::unique_ptr<Mirror>>>();
    auto sent = std::make_shared<std::vector<std::unique_ptr<Mirror>>>();
    inner_->AllToAllV(stream, purpose, [this, pieces, received, sent] {
      PeerPieces there = pieces();
      const auto move = [&](std::vector<std::vector<MemoryPiece>>& lists, auto& mirrors, bool in) {
        for (auto& list : lists) {
          for (MemoryPiece& piece : list) {
            if (piece.bytes == 0) continue;
            mirrors->push_back(std::make_unique<Mirror>(device_, piece.data, piece.bytes));
            if (in) mirrors->back()->In();
            piece = mirrors->back()->piece();
          }
        }
      };
      move(there.send, sent, true);
      move(there.receive, received, false);
      return there;
    });
    stream.Enqueue([this, received, sent] {
      if (!status().ok()) return;
      for (const auto& mirror : *received) mirror->Out();
    });
  }
  void Broadcast(Stream& stream, Purpose purpose, int root, TensorView x) override {
    On(stream, x, [&](TensorView there) { inner_->Broadcast(stream, purpose, root, there); });
  }
  void Barrier(Stream& stream, Purpose purpose) override { inner_->Barrier(stream, purpose); }
  absl::StatusOr<std::unique_ptr<Communicator>> Split(Stream& stream, const std::string& name, int color,
                                                      int key) override {
    absl::StatusOr<std::unique_ptr<Communicator>> group = inner_->Split(stream, name, color, key);
    if (!group.ok() || *group == nullptr) return group;
    Communicator* const inner = group->get();
    return std::make_unique<DeviceCommunicator>(inner, *std::move(group), device_);
  }
  absl::Status Close(Stream& stream) override { return inner_->Close(stream); }

 private:
  template <typename F>
  void On(Stream& stream, TensorView x, const F& call) {
    On(stream, x, x, [&](TensorView all, TensorView) { call(all); });
  }
  // `part` may lie in `whole`.
  template <typename F>
  void On(Stream& stream, TensorView whole, TensorView part, const F& call) {
    if (whole.bytes() == 0) return call(whole, part);
    std::vector<std::shared_ptr<Mirror>> mirrors = {
        std::make_shared<Mirror>(device_, whole.data, whole.bytes())};
    TensorView there = part;
    if (mirrors[0]->Covers(part.data)) {
      there = mirrors[0]->Of(part);
    } else if (part.bytes() > 0) {
      mirrors.push_back(std::make_shared<Mirror>(device_, part.data, part.bytes()));
      there = mirrors[1]->Of(part);
    }
    stream.Enqueue([mirrors] {
      for (const auto& mirror : mirrors) mirror->In();
    });
    call(mirrors[0]->Of(whole), there);
    stream.Enqueue([mirrors] {
      for (const auto& mirror : mirrors) mirror->Out();
    });
  }

  Communicator* inner_;
  const std::unique_ptr<Communicator> owned_;
  TestDevice& device_;
};

}  // namespace

std::unique_ptr<TestDevice> NewGpuTestDevice(Backend& backend) {
  return std::make_unique<GpuTestDevice>(backend);
}

std::unique_ptr<Communicator> OnDevice(Communicator& inner, TestDevice& device) {
  return std::make_unique<DeviceCommunicator>(&inner, nullptr, device);
}

}  // namespace moebius
