#include "parallel/comm/direct.h"

#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// What the sender answers.
struct Turn {
  int64_t number = 0;
  int64_t bytes = 0;
  char id[128] = {};  // the channel's
};

struct Channel {
  std::string id;
  std::unique_ptr<DeviceChannel> device;
  int64_t given = 0;        // turns, by the sender
  int64_t transferred = 0;  // whose turn it is
};

struct DirectRequest final : Transport::Request {
  int peer = 0;
  bool is_send = false;
  Message message;
  Stream* stream = nullptr;
  Message turn_message;
  Turn turn;
  bool has_turn = false;
  std::unique_ptr<Transport::Request> hear, tell;  // the agreement
  DeviceLink::Block block;                         // of scattered pieces
  std::unique_ptr<DeviceLink::Work> gather, transfer, scatter;
  bool transferred = false;

  MemoryPiece Whole() const {
    if (block.data != nullptr) return {block.data, message.bytes()};
    for (const MemoryPiece& piece : message.pieces) {
      if (piece.bytes > 0) return piece;
    }
    return {};
  }
};

// The agreement's tags: those of the groups' messages, one context block on.
Tag AgreementTag(Tag tag, Tag::Kind kind) {
  tag.context += Tag::kMaxContexts;
  tag.kind = kind;
  return tag;
}

class DirectTransport final : public Transport {
 public:
  explicit DirectTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }

  std::unique_ptr<Request> PostSend(const Message& message, Stream& stream) override {
    if (!IsDirect(message)) return inner_->PostSend(message, stream);
    std::unique_ptr<DirectRequest> r = NewRequest(message, stream, true);
    if (r->block.data != nullptr) {
      r->gather = message.link->Copy(message.pieces, {{r->block.data, message.bytes()}});
    }
    r->hear = inner_->PostReceive({message.peer, AgreementTag(message.tag, Tag::kPoint), {}}, stream);
    return r;
  }

  std::unique_ptr<Request> PostReceive(const Message& message, Stream& stream) override {
    if (!IsDirect(message)) return inner_->PostReceive(message, stream);
    std::unique_ptr<DirectRequest> r = NewRequest(message, stream, false);
    r->tell = inner_->PostSend({message.peer, AgreementTag(message.tag, Tag::kPoint), {}}, stream);
    r->hear = inner_->PostReceive(r->turn_message, stream);
    return r;
  }

  Advance Test(Request& request) override {
    auto* const r = dynamic_cast<DirectRequest*>(&request);
    if (r == nullptr) return inner_->Test(request);
    for (std::unique_ptr<Request>* side : {&r->hear, &r->tell}) {
      if (*side && inner_->Test(**side) != Advance::kOpen) side->reset();
    }
    const bool failed = !inner_->status().ok();
    if (failed) EndChannels();
    if (r->gather && r->gather->Done()) r->gather.reset();
    if (r->hear || r->gather) return Advance::kOpen;
    if (!failed && !r->is_send && r->turn.bytes != r->message.bytes()) return Advance::kWrongSize;
    const bool done = failed ? Ended(*r) : Transferred(*r);
    if (!done || r->tell) return Advance::kOpen;
    if (r->block.data != nullptr) r->message.link->Give(std::exchange(r->block, {}));
    return Advance::kDone;
  }

  void Abort(const absl::Status& status) override { inner_->Abort(status); }
  absl::Status status() override { return inner_->status(); }
  void Close() override {
    out_.clear();
    in_.clear();
    inner_->Close();
  }

 private:
  bool IsDirect(const Message& message) const {
    return message.link != nullptr && message.peer != rank() && message.link->has_channels();
  }

  static std::unique_ptr<DirectRequest> NewRequest(const Message& message, Stream& stream, bool is_send) {
    auto r = std::make_unique<DirectRequest>();
    r->peer = message.peer;
    r->is_send = is_send;
    r->message = message;
    r->stream = &stream;
    r->turn_message = {message.peer, AgreementTag(message.tag, Tag::kCollective), {{&r->turn, sizeof(Turn)}}};
    int pieces = 0;
    for (const MemoryPiece& piece : message.pieces) pieces += piece.bytes > 0;
    if (pieces > 1) r->block = message.link->Take(DeviceLink::Place::kDevice, message.bytes());
    return r;
  }

  // The ends have agreed, or (sender) the other one is ready.
  bool Transferred(DirectRequest& r) {
    Channel& channel = (r.is_send ? out_ : in_)[r.peer];
    if (!r.has_turn) {
      r.has_turn = true;
      if (r.is_send) GiveTurn(r, channel);
      if (channel.device == nullptr) {
        channel.device =
            r.message.link->OpenChannel(std::string(r.turn.id, sizeof r.turn.id), r.is_send, size());
      }
    }
    if (const absl::Status status = channel.device->status(); !status.ok()) {
      inner_->Abort(LostPeerError(
          Concat("rank ", rank(), " lost the direct way ", r.is_send ? "to" : "from", " rank ", r.peer, ": ",
                 std::string(status.message()),
                 "; ranks that share a GPU need an NCCL_HOSTID each, or MOEBIUS_NCCL=0 goes through the "
                 "host")));
      return false;
    }
    if (!r.transferred && r.transfer == nullptr) {
      if (channel.transferred != r.turn.number || !channel.device->Ready()) return false;
      r.transfer = channel.device->Transfer(r.Whole());
      ++channel.transferred;
    }
    if (r.transfer) {
      if (!r.transfer->Done()) return false;
      r.transfer.reset();
      r.transferred = true;
      if (!r.is_send && r.block.data != nullptr) {
        r.scatter = r.message.link->Copy({{r.block.data, r.message.bytes()}}, r.message.pieces);
      }
    }
    if (r.scatter && !r.scatter->Done()) return false;
    r.scatter.reset();
    return true;
  }

  void GiveTurn(DirectRequest& r, Channel& channel) {
    if (channel.id.empty()) {
      channel.id = r.message.link->NewChannelId();
      channel.id.resize(sizeof r.turn.id);
    }
    r.turn.number = channel.given++;
    r.turn.bytes = r.message.bytes();
    std::memcpy(r.turn.id, channel.id.data(), channel.id.size());
    r.tell = inner_->PostSend(r.turn_message, *r.stream);
  }

  // The world has failed: channels are closed, so that only copies on this device may be under way.
  static bool Ended(DirectRequest& r) {
    r.transfer.reset();
    return r.scatter == nullptr || r.scatter->Done();
  }

  // All at once: ending one waits for the device's kernels, those of the others among them.
  void EndChannels() {
    if (std::exchange(ended_, true)) return;
    std::vector<std::jthread> ending;
    for (auto* channels : {&out_, &in_}) {
      for (auto& [peer, channel] : *channels) {
        if (channel.device == nullptr) continue;
        ending.emplace_back([device = channel.device.get()] { device->Abort(); });
      }
    }
  }

  const std::unique_ptr<Transport> inner_;
  std::map<int, Channel> out_, in_;  // by peer; of the exchange thread alone
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<Transport> NewDirectTransport(std::unique_ptr<Transport> inner) {
  return std::make_unique<DirectTransport>(std::move(inner));
}

}  // namespace moebius
