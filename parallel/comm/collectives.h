// The algorithms: each collective as the phases of messages of one member. All are direct (every member to
// every other): the sums stay in rank order, and the groups of this program are small or exchange rows
// anyway.
#pragma once

#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/operation.h"
#include "parallel/comm/rank_state.h"

namespace moebius {

// Who takes part, and the tag of the call's messages.
struct Members {
  const GroupInfo* group = nullptr;
  Tag tag;
  ScratchPool* scratch = nullptr;
  DeviceLink* link = nullptr;  // of the call's stream

  int rank() const { return group->rank; }
  int size() const { return group->size(); }
  std::vector<int> Others() const;  // ranks in the group
  DeviceLink* LinkOf(const void* memory) const { return link && link->Holds(memory) ? link : nullptr; }
  Message With(int rank, std::vector<MemoryPiece> pieces) const;
};

std::vector<MessagePhase> SendPhases(const Members& members, int to, TensorView x);
std::vector<MessagePhase> RecvPhases(const Members& members, int from, TensorView x);
std::vector<MessagePhase> AllReducePhases(const Members& members, TensorView x, ReduceOp op);
std::vector<MessagePhase> ReduceScatterPhases(const Members& members, TensorView x,
                                              const std::vector<int64_t>& counts, TensorView mine);
std::vector<MessagePhase> AllGatherPhases(const Members& members, TensorView mine,
                                          const std::vector<int64_t>& counts, TensorView all);
std::vector<MessagePhase> AllToAllPhases(const Members& members, PeerPieces pieces);
std::vector<MessagePhase> BroadcastPhases(const Members& members, int root, TensorView x);
std::vector<MessagePhase> BarrierPhases(
    const Members& members);  // empty messages, to be sure that all are here

}  // namespace moebius
