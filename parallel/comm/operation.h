// A call under way: phases of messages, one after another, driven by polling.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/ledger.h"
#include "parallel/comm/rank_state.h"

namespace moebius {

struct GroupInfo {
  std::string name;
  std::vector<int> world_ranks;  // of the members
  int rank = 0;                  // this one's, in the group
  int context = 0;

  int size() const { return static_cast<int>(world_ranks.size()); }
};

// Messages that travel at the same time, and what is done when all of them have arrived: at once, or by the
// work that `then` returns. It is kept until that is done.
struct MessagePhase {
  std::vector<Message> receives, sends;
  std::function<std::unique_ptr<DeviceLink::Work>()> then = nullptr;
};

class Operation {
 public:
  struct Spec {
    // Shared: a call that is still queued outlives its communicator when a failing rank unwinds.
    std::shared_ptr<const GroupInfo> group;
    LedgerEntry entry;
    Tag ledger_tag;
    std::vector<int> announce_to, hear_from;          // world ranks that get an entry, and that send one
    std::function<std::vector<MessagePhase>()> plan;  // asked when the stream gets here
  };

  Operation(RankState* state, Spec spec) : state_(state), spec_(std::move(spec)) {}

  // Goes on as far as it can without waiting; true when done, or ended by the world's failure.
  bool Poll(Stream& stream);

 private:
  struct Open {
    std::unique_ptr<Transport::Request> request;
    int peer = 0;
    bool is_send = false;
    bool hears = false;  // the peer's ledger entry
  };

  void Begin(Stream& stream);
  void AddLedger(MessagePhase& first);
  void Post(const MessagePhase& phase, Stream& stream);
  bool TestOpen();  // true when none is left
  void Compare(int peer);
  void FailForSize();

  RankState* state_;
  const Spec spec_;
  bool begun_ = false;
  std::vector<MessagePhase> phases_;
  size_t phase_ = 0;
  std::unique_ptr<DeviceLink::Work> work_;  // of the phase's `then`
  std::vector<Open> open_;
  OpenOperations::Handle record_;
  size_t reported_ = 0;  // open messages at the last report to the record
  int wrong_size_from_ = -1;
  // One for each of announce_to and hear_from; and the bytes that the latter's data must have.
  std::vector<LedgerEntry> announced_, heard_;
  std::vector<int64_t> expected_bytes_;
};

}  // namespace moebius
