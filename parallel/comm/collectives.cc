#include "parallel/comm/collectives.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "parallel/comm/reduce.h"

namespace moebius {

namespace {

// Up to here an all-reduce is one phase in which everybody gets everything: half the latency, the same sums.
constexpr int64_t kSmallAllReduceBytes = 4096;

MemoryPiece Elements(TensorView x, int64_t begin, int64_t count) {
  const int64_t size = SizeOf(x.dtype);
  return {static_cast<char*>(x.data) + begin * size, count * size};
}
MemoryPiece Whole(TensorView x) { return {x.data, x.bytes()}; }

std::vector<int64_t> Offsets(const std::vector<int64_t>& counts) {
  std::vector<int64_t> offsets(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), int64_t{0});
  return offsets;
}

// Nearly equal slices; with few elements the last ranks' are empty.
std::vector<int64_t> EvenCounts(int64_t elements, int size) {
  const int64_t slice = (elements + size - 1) / size;
  std::vector<int64_t> counts(size);
  for (int64_t& count : counts) {
    count = std::min(slice, elements);
    elements -= count;
  }
  return counts;
}

// The others' contributions [size - 1][count] and, in its place, this rank's own: as the reduction wants
// them. In memory of the same kind.
class Contributions {
 public:
  Contributions(const Members& members, DType dtype, int64_t count, const void* own)
      : pool_(members.scratch), link_(members.LinkOf(own)), dtype_(dtype), count_(count) {
    bytes_ = count * SizeOf(dtype);
    char* next = Take(bytes_ * (members.size() - 1));
    for (int rank = 0; rank < members.size(); ++rank) {
      const bool is_own = rank == members.rank();
      by_rank_.push_back(is_own ? own : next);
      if (!is_own) next += bytes_;
    }
  }
  ~Contributions() { link_ == nullptr ? pool_->Return(std::move(block_)) : link_->Give(device_block_); }
  Contributions(const Contributions&) = delete;
  Contributions& operator=(const Contributions&) = delete;

  std::vector<MemoryPiece> From(int rank) const { return {{const_cast<void*>(by_rank_[rank]), bytes_}}; }
  // out [count] = their sum or maximum, in rank order.
  std::unique_ptr<DeviceLink::Work> Reduce(ReduceOp op, void* out) const {
    if (link_ != nullptr) return link_->Reduce(dtype_, op, by_rank_, count_, out);
    ReduceInRankOrder(dtype_, op, by_rank_, count_, out);
    return nullptr;
  }

 private:
  char* Take(int64_t bytes) {
    if (link_ == nullptr) return (block_ = pool_->Take(bytes)).memory.get();
    device_block_ = link_->Take(DeviceLink::Place::kDevice, bytes);
    return static_cast<char*>(device_block_.data);
  }

  ScratchPool* pool_;
  DeviceLink* link_;  // null: host memory
  DType dtype_;
  int64_t count_, bytes_;
  ScratchPool::Block block_;
  DeviceLink::Block device_block_;
  std::vector<const void*> by_rank_;
};

// Every member gets the others' piece of its own slice and sums: out [counts[rank]].
MessagePhase ReduceSlices(const Members& members, TensorView x, const std::vector<int64_t>& counts,
                          ReduceOp op, void* out) {
  const std::vector<int64_t> offsets = Offsets(counts);
  const int64_t count = counts[members.rank()];
  const MemoryPiece own = Elements(x, offsets[members.rank()], count);
  // Shared because std::function wants what can be copied.
  auto contributions = std::make_shared<Contributions>(members, x.dtype, count, own.data);
  MessagePhase phase;
  for (const int peer : members.Others()) {
    if (count > 0) phase.receives.push_back(members.With(peer, contributions->From(peer)));
    if (counts[peer] > 0) {
      phase.sends.push_back(members.With(peer, {Elements(x, offsets[peer], counts[peer])}));
    }
  }
  phase.then = [contributions, op, out] { return contributions->Reduce(op, out); };
  return phase;
}

// Every member sends its own slice of `all`, which is in place, to the others.
MessagePhase GatherSlices(const Members& members, const std::vector<int64_t>& counts, TensorView all) {
  const std::vector<int64_t> offsets = Offsets(counts);
  MessagePhase phase;
  for (const int peer : members.Others()) {
    const MemoryPiece own = Elements(all, offsets[members.rank()], counts[members.rank()]);
    if (counts[peer] > 0) {
      phase.receives.push_back(members.With(peer, {Elements(all, offsets[peer], counts[peer])}));
    }
    if (own.bytes > 0) phase.sends.push_back(members.With(peer, {own}));
  }
  return phase;
}

// Everybody gets everything of everybody.
MessagePhase SmallAllReduce(const Members& members, TensorView x, ReduceOp op) {
  auto contributions = std::make_shared<Contributions>(members, x.dtype, x.elements(), x.data);
  MessagePhase phase;
  for (const int peer : members.Others()) {
    phase.receives.push_back(members.With(peer, contributions->From(peer)));
    phase.sends.push_back(members.With(peer, {Whole(x)}));
  }
  phase.then = [contributions, op, out = x.data] { return contributions->Reduce(op, out); };
  return phase;
}

}  // namespace

std::vector<int> Members::Others() const {
  std::vector<int> others;
  // Each begins with the rank after itself, so that not all send to the same one first.
  for (int i = 1; i < size(); ++i) others.push_back((rank() + i) % size());
  return others;
}

Message Members::With(int peer, std::vector<MemoryPiece> pieces) const {
  Message message{group->world_ranks[peer], tag, std::move(pieces)};
  if (link == nullptr) return message;
  for (const MemoryPiece& piece : message.pieces) {
    if (piece.bytes > 0) {
      message.link = LinkOf(piece.data);
      break;
    }
  }
  return message;
}

std::vector<MessagePhase> SendPhases(const Members& members, int to, TensorView x) {
  return {{.receives = {}, .sends = {members.With(to, {Whole(x)})}}};
}

std::vector<MessagePhase> RecvPhases(const Members& members, int from, TensorView x) {
  return {{.receives = {members.With(from, {Whole(x)})}, .sends = {}}};
}

std::vector<MessagePhase> AllReducePhases(const Members& members, TensorView x, ReduceOp op) {
  if (members.size() == 1 || x.elements() == 0) return {};
  if (x.bytes() <= kSmallAllReduceBytes) return {SmallAllReduce(members, x, op)};
  const std::vector<int64_t> counts = EvenCounts(x.elements(), members.size());
  const MemoryPiece own = Elements(x, Offsets(counts)[members.rank()], counts[members.rank()]);
  return {ReduceSlices(members, x, counts, op, own.data), GatherSlices(members, counts, x)};
}

std::vector<MessagePhase> ReduceScatterPhases(const Members& members, TensorView x,
                                              const std::vector<int64_t>& counts, TensorView mine) {
  return {ReduceSlices(members, x, counts, ReduceOp::kSum, mine.data)};
}

std::vector<MessagePhase> AllGatherPhases(const Members& members, TensorView mine,
                                          const std::vector<int64_t>& counts, TensorView all) {
  const MemoryPiece place = Elements(all, Offsets(counts)[members.rank()], counts[members.rank()]);
  const bool moves = place.data != mine.data && place.bytes > 0;
  DeviceLink* const link = moves ? members.LinkOf(place.data) : nullptr;
  if (link != nullptr) {
    MessagePhase move{.receives = {}, .sends = {}, .then = [link, mine, place] {
                        return link->Copy({Whole(mine)}, {place});
                      }};
    return {std::move(move), GatherSlices(members, counts, all)};
  }
  if (moves) std::memcpy(place.data, mine.data, place.bytes);
  return {GatherSlices(members, counts, all)};
}

std::vector<MessagePhase> AllToAllPhases(const Members& members, PeerPieces pieces) {
  CHECK_EQ(pieces.send.size(), static_cast<size_t>(members.size()));
  CHECK_EQ(pieces.receive.size(), static_cast<size_t>(members.size()));
  MessagePhase phase;
  std::vector<int> peers = members.Others();
  peers.push_back(members.rank());
  for (const int peer : peers) {
    Message receive = members.With(peer, std::move(pieces.receive[peer]));
    Message send = members.With(peer, std::move(pieces.send[peer]));
    if (peer == members.rank()) {
      CHECK_EQ(send.bytes(), receive.bytes()) << "to itself";
      if (DeviceLink* const link = send.link) {
        phase.then = [link, from = std::move(send.pieces), to = std::move(receive.pieces)] {
          return link->Copy(from, to);
        };
        continue;
      }
    }
    if (receive.bytes() > 0) phase.receives.push_back(std::move(receive));
    if (send.bytes() > 0) phase.sends.push_back(std::move(send));
  }
  return {std::move(phase)};
}

std::vector<MessagePhase> BroadcastPhases(const Members& members, int root, TensorView x) {
  if (x.bytes() == 0) return {};
  MessagePhase phase;
  if (members.rank() == root) {
    for (const int peer : members.Others()) phase.sends.push_back(members.With(peer, {Whole(x)}));
  } else {
    phase.receives.push_back(members.With(root, {Whole(x)}));
  }
  return {std::move(phase)};
}

std::vector<MessagePhase> BarrierPhases(const Members& members) {
  MessagePhase phase;
  for (const int peer : members.Others()) {
    phase.receives.push_back(members.With(peer, {}));
    phase.sends.push_back(members.With(peer, {}));
  }
  return {std::move(phase)};
}

}  // namespace moebius
