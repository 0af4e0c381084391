#include "parallel/comm/tcp_transport.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::microseconds kLookAround{200};
constexpr std::chrono::seconds kCloseWithin{5};

// Ahead of every message's bytes. Beside messages: the text of a failure, and the sender's last frame.
struct Frame {
  static constexpr int32_t kFailure = -1, kBye = -2;
  int32_t tag = 0;
  int32_t code = 0;  // of a failure
  int64_t bytes = 0;
};

struct Peer {
  int socket = -1;
  std::string* in = nullptr;
  std::deque<std::string> out;  // not written yet; `written` bytes of the first are
  size_t written = 0;
  int64_t queued = 0, sent = 0;  // frames
  bool bye = false;              // what comes after it is the next transport's
  bool ended = false;            // its connection; what came before that still counts
  Clock::time_point ended_at;
};

struct TcpRequest final : Transport::Request {
  bool is_send = false;
  int64_t frame = 0;  // of a send: number of its peer's
  int peer = 0, tag = 0;
  std::vector<MemoryPiece> pieces;
  int64_t bytes = 0;
};

class TcpTransport final : public Transport {
 public:
  TcpTransport(int rank, std::vector<TcpLink>& links) : rank_(rank), peers_(links.size()) {
    for (size_t i = 0; i < links.size(); ++i) {
      peers_[i].socket = links[i].socket;
      peers_[i].in = &links[i].in;
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(peers_.size()); }

  std::unique_ptr<Request> PostSend(const Message& message, Stream& stream) override {
    std::unique_ptr<TcpRequest> r = NewRequest(message);
    r->is_send = true;
    std::lock_guard lock(mutex_);
    if (!status_.ok()) return r;
    std::string body;
    body.reserve(sizeof(Frame) + r->bytes);
    Append({.tag = r->tag, .code = 0, .bytes = r->bytes}, body);
    for (const MemoryPiece& piece : r->pieces) body.append(static_cast<const char*>(piece.data), piece.bytes);
    if (message.peer == rank_) {
      arrived_[{rank_, r->tag}].push_back(body.substr(sizeof(Frame)));
      stream.Wake();
    } else {
      r->frame = Queue(message.peer, std::move(body));
    }
    return r;
  }

  std::unique_ptr<Request> PostReceive(const Message& message, Stream&) override {
    return NewRequest(message);
  }

  Advance Test(Request& request) override {
    TcpRequest& r = static_cast<TcpRequest&>(request);
    std::lock_guard lock(mutex_);
    Look(r.peer);  // at the others now and then: status()
    if (!status_.ok()) return Advance::kDone;
    const Peer& peer = peers_[r.peer];
    // Sends are open until they have left, so that somebody looks after them.
    if (r.is_send) return peer.out.empty() || peer.sent >= r.frame ? Advance::kDone : Advance::kOpen;
    const auto found = arrived_.find({r.peer, r.tag});
    if (found == arrived_.end()) {
      if (!peer.ended) return Advance::kOpen;
      // Only now: a rank may go before the others have read its last messages.
      Lose(r.peer);
      return Advance::kDone;
    }
    const std::string body = std::move(found->second.front());
    found->second.pop_front();
    if (found->second.empty()) arrived_.erase(found);
    if (static_cast<int64_t>(body.size()) != r.bytes) return Advance::kWrongSize;
    const char* next = body.data();
    for (const MemoryPiece& piece : r.pieces) {
      if (piece.bytes > 0) std::memcpy(piece.data, next, piece.bytes);
      next += piece.bytes;
    }
    return Advance::kDone;
  }

  void Abort(const absl::Status& status) override {
    CHECK(!status.ok());
    std::lock_guard lock(mutex_);
    Fail(status);
  }

  absl::Status status() override {
    std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    if (now >= next_look_) {
      next_look_ = now + kLookAround;
      LookAround();
      // Who waits for other ranks, or only computes, hears of it too.
      for (int i = 0; i < size(); ++i) {
        if (peers_[i].ended && !peers_[i].bye && now - peers_[i].ended_at > kCloseWithin) Lose(i);
      }
    }
    return status_;
  }

  // Every message of this rank leaves before it says good-bye; it stays until all have said so, since what a
  // peer still sends must find an open socket.
  void Close() override {
    std::lock_guard lock(mutex_);
    std::string frame;
    Append({.tag = Frame::kBye, .code = 0, .bytes = 0}, frame);
    ToAll(frame);
    const auto open = [&](const Peer& peer) {
      return peer.socket >= 0 && !peer.ended && (!peer.bye || !peer.out.empty());
    };
    for (const Clock::time_point give_up = Clock::now() + kCloseWithin;
         status_.ok() && std::any_of(peers_.begin(), peers_.end(), open) && Clock::now() < give_up;) {
      poll(nullptr, 0, 1);
      LookAround();
    }
  }

 private:
  static void Append(const Frame& frame, std::string& to) {
    to.append(reinterpret_cast<const char*>(&frame), sizeof frame);
  }
  static std::unique_ptr<TcpRequest> NewRequest(const Message& message) {
    CHECK(message.link == nullptr) << "a device's memory (staged.h)";
    auto r = std::make_unique<TcpRequest>();
    r->peer = message.peer;
    r->tag = message.tag.Packed();
    r->pieces = message.pieces;
    r->bytes = message.bytes();
    return r;
  }

  void Fail(const absl::Status& status) {
    if (!status_.ok()) return;
    status_ = status;
    const std::string text(status.message());
    std::string frame;
    Append({.tag = Frame::kFailure,
            .code = static_cast<int32_t>(status.code()),
            .bytes = static_cast<int64_t>(text.size())},
           frame);
    ToAll(frame + text);
  }

  void Lose(int rank) {
    Fail(LostPeerError(Concat("rank ", rank, " is lost: its connection to rank ", rank_, " ended")));
  }

  // Nobody will read what was to be sent.
  void End(Peer& peer) {
    if (!peer.ended) peer.ended_at = Clock::now();
    peer.ended = true;
    peer.out.clear();
    peer.written = 0;
  }

  int64_t Queue(int rank, std::string frame) {
    Peer& peer = peers_[rank];
    peer.out.push_back(std::move(frame));
    const int64_t number = ++peer.queued;
    Write(rank);
    return number;
  }

  void ToAll(const std::string& frame) {
    for (size_t i = 0; i < peers_.size(); ++i) {
      if (peers_[i].socket < 0) continue;
      Queue(static_cast<int>(i), frame);
    }
  }

  void LookAround() {
    for (int i = 0; i < size(); ++i) Look(i);
  }

  void Look(int rank) {
    if (peers_[rank].socket < 0) return;
    Write(rank);
    Read(rank);
  }

  void Write(int rank) {
    Peer& peer = peers_[rank];
    if (peer.ended) End(peer);
    while (!peer.out.empty()) {
      const std::string& first = peer.out.front();
      const ssize_t n = send(peer.socket, first.data() + peer.written, first.size() - peer.written,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
          Read(rank);  // what the peer had to say before
          End(peer);
        }
        return;
      }
      peer.written += n;
      if (peer.written < first.size()) continue;
      peer.out.pop_front();
      peer.written = 0;
      ++peer.sent;
    }
  }

  void Read(int rank) {
    Peer& peer = peers_[rank];
    if (peer.bye || peer.ended) return;
    static thread_local std::vector<char> buffer(1 << 18);
    for (;;) {
      const ssize_t n = recv(peer.socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        End(peer);
        break;
      }
      if (n < 0) break;
      peer.in->append(buffer.data(), n);
      if (static_cast<size_t>(n) < buffer.size()) break;
    }
    size_t at = 0;
    for (Frame frame; !peer.bye && peer.in->size() - at >= sizeof frame;) {
      std::memcpy(&frame, peer.in->data() + at, sizeof frame);
      if (peer.in->size() - at - sizeof frame < static_cast<size_t>(frame.bytes)) break;
      std::string body = peer.in->substr(at + sizeof frame, frame.bytes);
      at += sizeof frame + frame.bytes;
      if (frame.tag == Frame::kBye) {
        peer.bye = true;
      } else if (frame.tag == Frame::kFailure) {
        if (status_.ok()) status_ = absl::Status(static_cast<absl::StatusCode>(frame.code), body);
      } else {
        arrived_[{rank, frame.tag}].push_back(std::move(body));
      }
    }
    peer.in->erase(0, at);
  }

  const int rank_;
  std::mutex mutex_;  // guards all below
  std::vector<Peer> peers_;
  std::map<std::pair<int, int>, std::deque<std::string>> arrived_;  // by source and tag
  absl::Status status_;
  Clock::time_point next_look_;
};

}  // namespace

std::unique_ptr<Transport> NewTcpTransport(int rank, std::vector<TcpLink>& links) {
  return std::make_unique<TcpTransport>(rank, links);
}

}  // namespace moebius
