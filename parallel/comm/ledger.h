// The collective ledger: what each call of a group was, so that ranks which disagree get an error that names
// both calls instead of a hang. An entry goes ahead of a call's data, to each peer of the call, at the same
// time: it costs no round trip. Its hash rolls on from call to call, so it vouches for all earlier ones too.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/tensor/dtype.h"
#include "parallel/comm/communicator.h"

namespace moebius {

enum class Call : uint8_t {
  kSend,
  kRecv,
  kAllReduceSum,
  kAllReduceMax,
  kReduceScatterV,
  kAllGatherV,
  kAllToAllV,
  kBroadcast,
  kBarrier,
  kSplit,
  kClose
};

// Travels as bytes between ranks of the same binary.
struct LedgerEntry {
  uint64_t hash = 0;
  int64_t sequence = 0;  // of the group's collectives, from 0
  int64_t count = -1;    // elements over all ranks; -1: each pair has its own
  int64_t bytes = 0;     // of this call from the entry's sender to its receiver
  int32_t layer = -1, index = -1;
  int32_t where = -1;  // Broadcast: root; Send and Recv: tag
  Call call = Call::kBarrier;
  DType dtype = DType::kU8;
  char what[42] = {};  // Purpose::what, cut
};
static_assert(std::is_trivially_copyable_v<LedgerEntry> && sizeof(LedgerEntry) == 88);

// "AllReduce(sum) of 100 F32 for 'gradient bucket' (layer 3, index 4)"
std::string Describe(const LedgerEntry& entry);

// One group's, on one rank.
class Ledger {
 public:
  // The next collective. `counts`, for V calls: elements of each rank, which must agree too.
  LedgerEntry Collective(Call call, Purpose purpose, DType dtype, int64_t count, int where = -1,
                         const std::vector<int64_t>& counts = {});
  // A Send or Recv stands outside the sequence: its two ends must agree with each other only.
  static LedgerEntry Point(Call call, Purpose purpose, DType dtype, int64_t count, int tag);

 private:
  int64_t sequence_ = 0;
  uint64_t hash_ = 0;
};

// Whether a peer's entry fits a rank's own, of which `expected_bytes` are to come from that peer.
bool Agrees(const LedgerEntry& mine, int64_t expected_bytes, const LedgerEntry& theirs);
// The error for two that do not; ranks are world ranks.
std::string Disagreement(std::string_view group, int my_rank, const LedgerEntry& mine, int64_t expected_bytes,
                         int their_rank, const LedgerEntry& theirs);

}  // namespace moebius
