// The transport seam: messages between the ranks of one world, of which communicators are made. Two ends of a
// message meet by (source, destination, tag), in the order in which they were posted.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/backend/backend.h"
#include "parallel/comm/communicator.h"

namespace moebius {

// The group, the kind, and a call's number or the caller's tag: 29 bits, which fit into MPI's own tags with
// one to spare (direct.cc).
struct Tag {
  // A ledger message (ledger.h) goes before the data of each call.
  enum Kind : uint32_t { kCollectiveLedger, kCollective, kPointLedger, kPoint };
  static constexpr int kMaxContexts = 1 << 11;
  static constexpr int kNumbers = 1 << 16;

  int context = 0;  // the group's; equal on its members, different for groups that share two ranks
  Kind kind = kCollective;
  int number = 0;

  int Packed() const { return (context << 18) | (static_cast<int>(kind) << 16) | number; }
  bool IsLedger() const { return kind == kCollectiveLedger || kind == kPointLedger; }
};

struct Message {
  int peer = 0;  // world rank
  Tag tag;
  std::vector<MemoryPiece> pieces;
  DeviceLink* link = nullptr;  // where they are a device's memory

  int64_t bytes() const {
    int64_t sum = 0;
    for (const MemoryPiece& piece : pieces) sum += piece.bytes;
    return sum;
  }
};

// kWrongSize: the other end's message has another size; nothing sensible has arrived.
enum class Advance { kOpen, kDone, kWrongSize };

// One rank's end. Post and Test are called by the rank's exchange thread, Abort and status by any.
class Transport {
 public:
  // A posted message; destroyed only after Test has said that it is no longer open.
  class Request {
   public:
    virtual ~Request() = default;
  };

  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Returns at once. The stream is woken when another thread of this process completes the message.
  virtual std::unique_ptr<Request> PostSend(const Message& message, Stream& stream) = 0;
  virtual std::unique_ptr<Request> PostReceive(const Message& message, Stream& stream) = 0;
  virtual Advance Test(Request& request) = 0;

  // Fails the world on all ranks (the first status stays): open requests end without their data, and soon:
  // Test says kDone once the buffers are free, new ones are done at once. Over MPI a buffer whose peer has
  // died half-way is given up after 0.1 s: the process should end then.
  virtual void Abort(const absl::Status& status) = 0;
  // OK, or why the world has failed; looks for a peer's Abort too.
  virtual absl::Status status() = 0;
  // After the last message of all ranks; collective.
  virtual void Close() = 0;
};

}  // namespace moebius
