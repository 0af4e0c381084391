#include "parallel/comm/in_process.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>

#include "core/base/check.h"

namespace moebius {

namespace {

// Larger messages are copied without the lock of the receiver's box.
constexpr int64_t kCopyUnderLock = 4096;

struct Box;

// One end of a message. After kOpen and kCopying its owner may destroy it, so who completes it touches it,
// and the stream that it wakes, only under the box's lock. Where one end is a device's memory, both ends wait
// for the copy's work themselves.
struct End final : Transport::Request {
  enum class State { kOpen, kCopying, kDone, kWrongSize };
  Box* box = nullptr;
  bool is_send = false;
  int source = 0, tag = 0;
  std::vector<MemoryPiece> pieces;
  int64_t bytes = 0;
  Stream* stream = nullptr;
  State state = State::kOpen;
  DeviceLink* link = nullptr;
  std::shared_ptr<DeviceLink::Work> copy;
};

// A receiver's unmatched ends, oldest first: few, so that looking through them is cheap.
struct Box {
  std::mutex mutex;
  std::vector<End*> waiting;
};

void Copy(const std::vector<MemoryPiece>& from, const std::vector<MemoryPiece>& to) {
  size_t i = 0;
  int64_t used = 0;  // bytes of from[i]
  for (const MemoryPiece& piece : to) {
    for (int64_t filled = 0; filled < piece.bytes;) {
      if (used == from[i].bytes) {
        ++i;
        used = 0;
        continue;
      }
      const int64_t n = std::min(piece.bytes - filled, from[i].bytes - used);
      std::memcpy(static_cast<char*>(piece.data) + filled, static_cast<const char*>(from[i].data) + used, n);
      filled += n;
      used += n;
    }
  }
}

}  // namespace

struct InProcessHub::State {
  explicit State(int size) : boxes(size) {}
  std::vector<Box> boxes;  // by destination
  std::atomic<bool> failed = false;
  mutable std::mutex mutex;
  absl::Status status;
};

InProcessHub::InProcessHub(int size) : state_(std::make_unique<State>(size)) {}
InProcessHub::~InProcessHub() = default;

void InProcessHub::Abort(const absl::Status& status) {
  CHECK(!status.ok());
  {
    std::lock_guard lock(state_->mutex);
    if (!state_->status.ok()) return;
    state_->status = status;
    state_->failed = true;  // before the boxes are emptied: a later Post sees it under its box's lock
  }
  for (Box& box : state_->boxes) {
    std::lock_guard lock(box.mutex);
    for (End* end : box.waiting) {
      end->state = End::State::kDone;
      end->stream->Wake();
    }
    box.waiting.clear();
  }
}

absl::Status InProcessHub::status() const {
  if (!state_->failed) return absl::OkStatus();
  std::lock_guard lock(state_->mutex);
  return state_->status;
}

class InProcessTransport final : public Transport {
 public:
  InProcessTransport(InProcessHub* hub, int rank) : hub_(hub), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(hub_->state_->boxes.size()); }
  std::unique_ptr<Request> PostSend(const Message& message, Stream& stream) override {
    return Post(true, rank_, message.peer, message, stream);
  }
  std::unique_ptr<Request> PostReceive(const Message& message, Stream& stream) override {
    return Post(false, message.peer, rank_, message, stream);
  }

  Advance Test(Request& request) override {
    End& end = static_cast<End&>(request);
    std::lock_guard lock(end.box->mutex);
    if (end.copy && end.copy->Done()) return Advance::kDone;
    if (end.state == End::State::kDone) return Advance::kDone;
    return end.state == End::State::kWrongSize ? Advance::kWrongSize : Advance::kOpen;
  }

  void Abort(const absl::Status& status) override { hub_->Abort(status); }
  absl::Status status() override { return hub_->status(); }
  void Close() override {}

 private:
  std::unique_ptr<Request> Post(bool is_send, int source, int destination, const Message& message,
                                Stream& stream) {
    auto mine = std::make_unique<End>();
    Box& box = hub_->state_->boxes[destination];
    mine->box = &box;
    mine->is_send = is_send;
    mine->source = source;
    mine->tag = message.tag.Packed();
    mine->pieces = message.pieces;
    mine->bytes = message.bytes();
    mine->stream = &stream;
    mine->link = message.link;

    std::unique_lock lock(box.mutex);
    if (hub_->state_->failed) {
      mine->state = End::State::kDone;
      return mine;
    }
    const auto found = std::find_if(box.waiting.begin(), box.waiting.end(), [&](const End* end) {
      return end->tag == mine->tag && end->source == source && end->is_send != is_send;
    });
    if (found == box.waiting.end()) {
      box.waiting.push_back(mine.get());
      return mine;
    }
    End* other = *found;
    box.waiting.erase(found);
    End::State outcome = End::State::kWrongSize;
    if (other->bytes == mine->bytes) {
      mine->state = other->state = End::State::kCopying;  // its owner waits, even if the world fails now
      if (DeviceLink* const link = mine->link ? mine->link : other->link) {
        mine->copy = other->copy =
            link->Copy(is_send ? mine->pieces : other->pieces, is_send ? other->pieces : mine->pieces);
        other->stream->Wake();
        return mine;
      }
      if (mine->bytes > kCopyUnderLock) lock.unlock();
      Copy(is_send ? mine->pieces : other->pieces, is_send ? other->pieces : mine->pieces);
      if (!lock.owns_lock()) lock.lock();
      outcome = End::State::kDone;
    }
    mine->state = other->state = outcome;
    other->stream->Wake();
    return mine;
  }

  InProcessHub* hub_;
  const int rank_;
};

std::unique_ptr<Transport> InProcessHub::NewTransport(int rank) {
  return std::make_unique<InProcessTransport>(this, rank);
}

}  // namespace moebius
