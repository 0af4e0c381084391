#include "parallel/comm/staged.h"

#include <utility>
#include <vector>

namespace moebius {
namespace {

struct StagedRequest final : Transport::Request {
  bool is_send = false;
  Message message;           // of the device
  Stream* stream = nullptr;  // of the call
  DeviceLink::Block block;   // of the host
  std::unique_ptr<DeviceLink::Work> copy;
  std::unique_ptr<Transport::Request> inner;

  std::vector<MemoryPiece> Staged() const { return {{block.data, message.bytes()}}; }
  Message OnHost() const { return {message.peer, message.tag, Staged()}; }
};

class StagedTransport final : public Transport {
 public:
  explicit StagedTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }

  std::unique_ptr<Request> PostSend(const Message& message, Stream& stream) override {
    if (message.link == nullptr) return inner_->PostSend(message, stream);
    std::unique_ptr<StagedRequest> r = NewRequest(message, stream);
    r->is_send = true;
    r->copy = message.link->Copy(message.pieces, r->Staged());
    return r;
  }

  std::unique_ptr<Request> PostReceive(const Message& message, Stream& stream) override {
    if (message.link == nullptr) return inner_->PostReceive(message, stream);
    std::unique_ptr<StagedRequest> r = NewRequest(message, stream);
    r->inner = inner_->PostReceive(r->OnHost(), stream);
    return r;
  }

  Advance Test(Request& request) override {
    auto* const r = dynamic_cast<StagedRequest*>(&request);
    if (r == nullptr) return inner_->Test(request);
    if (r->copy) {
      if (!r->copy->Done()) return Advance::kOpen;
      r->copy.reset();
      if (!r->is_send) return End(*r, Advance::kDone);
      r->inner = inner_->PostSend(r->OnHost(), *r->stream);
    }
    const Advance advance = inner_->Test(*r->inner);
    if (advance == Advance::kDone && !r->is_send && inner_->status().ok()) {
      r->copy = r->message.link->Copy(r->Staged(), r->message.pieces);
      return Advance::kOpen;
    }
    return advance == Advance::kOpen ? advance : End(*r, advance);
  }

  void Abort(const absl::Status& status) override { inner_->Abort(status); }
  absl::Status status() override { return inner_->status(); }
  void Close() override { inner_->Close(); }

 private:
  static std::unique_ptr<StagedRequest> NewRequest(const Message& message, Stream& stream) {
    auto r = std::make_unique<StagedRequest>();
    r->message = message;
    r->stream = &stream;
    r->block = message.link->Take(DeviceLink::Place::kHost, message.bytes());
    return r;
  }

  // In a failed world the other transport may still use the block: nobody else gets it.
  Advance End(StagedRequest& r, Advance how) {
    r.inner.reset();
    if (inner_->status().ok()) r.message.link->Give(r.block);
    return how;
  }

  const std::unique_ptr<Transport> inner_;
};

}  // namespace

std::unique_ptr<Transport> NewStagedTransport(std::unique_ptr<Transport> inner) {
  return std::make_unique<StagedTransport>(std::move(inner));
}

}  // namespace moebius
