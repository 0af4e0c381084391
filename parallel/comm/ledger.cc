#include "parallel/comm/ledger.h"

#include <algorithm>
#include <cstring>

#include "core/base/strings.h"

namespace moebius {

namespace {

const char* Name(Call call) {
  switch (call) {
    case Call::kSend:
      return "Send";
    case Call::kRecv:
      return "Recv";
    case Call::kAllReduceSum:
      return "AllReduce(sum)";
    case Call::kAllReduceMax:
      return "AllReduce(max)";
    case Call::kReduceScatterV:
      return "ReduceScatterV";
    case Call::kAllGatherV:
      return "AllGatherV";
    case Call::kAllToAllV:
      return "AllToAllV";
    case Call::kBroadcast:
      return "Broadcast";
    case Call::kBarrier:
      return "Barrier";
    case Call::kSplit:
      return "Split";
    case Call::kClose:
      return "Close";
  }
  return "?";
}

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 32);
}

LedgerEntry MakeEntry(Call call, Purpose purpose, DType dtype, int64_t count, int where) {
  LedgerEntry entry;
  entry.count = count;
  entry.layer = purpose.layer;
  entry.index = purpose.index;
  entry.where = where;
  entry.call = call;
  entry.dtype = dtype;
  const size_t length = std::min(std::strlen(purpose.what), sizeof(entry.what) - 1);
  std::memcpy(entry.what, purpose.what, length);
  return entry;
}

uint64_t HashOf(uint64_t hash, const LedgerEntry& entry, Call call) {
  hash = Mix(hash, static_cast<uint64_t>(call) << 8 | static_cast<uint64_t>(entry.dtype));
  hash = Mix(hash, entry.count);
  hash = Mix(hash, static_cast<uint64_t>(entry.layer) << 32 | static_cast<uint32_t>(entry.index));
  hash = Mix(hash, entry.where);
  for (const char* c = entry.what; *c != 0; ++c) hash = Mix(hash, *c);
  return hash;
}

bool SameText(const LedgerEntry& a, const LedgerEntry& b) { return Describe(a) == Describe(b); }

}  // namespace

std::string Describe(const LedgerEntry& entry) {
  std::string text = Name(entry.call);
  if (entry.call != Call::kBarrier && entry.call != Call::kSplit && entry.call != Call::kClose) {
    if (entry.count >= 0) {
      text += Concat(" of ", entry.count, " ", entry.dtype);
    } else {
      text += Concat(" of ", entry.dtype);
    }
  }
  if (entry.where >= 0)
    text += Concat(entry.call == Call::kBroadcast ? " from rank " : " with tag ", entry.where);
  text += Concat(" for '", entry.what, "'");
  if (entry.layer >= 0 && entry.index >= 0) {
    text += Concat(" (layer ", entry.layer, ", index ", entry.index, ")");
  } else if (entry.layer >= 0) {
    text += Concat(" (layer ", entry.layer, ")");
  } else if (entry.index >= 0) {
    text += Concat(" (index ", entry.index, ")");
  }
  return text;
}

LedgerEntry Ledger::Collective(Call call, Purpose purpose, DType dtype, int64_t count, int where,
                               const std::vector<int64_t>& counts) {
  LedgerEntry entry = MakeEntry(call, purpose, dtype, count, where);
  hash_ = HashOf(hash_, entry, call);
  for (const int64_t c : counts) hash_ = Mix(hash_, c);
  entry.hash = hash_;
  entry.sequence = sequence_++;
  return entry;
}

LedgerEntry Ledger::Point(Call call, Purpose purpose, DType dtype, int64_t count, int tag) {
  LedgerEntry entry = MakeEntry(call, purpose, dtype, count, tag);
  entry.hash = HashOf(0, entry, Call::kSend);
  return entry;
}

bool Agrees(const LedgerEntry& mine, int64_t expected_bytes, const LedgerEntry& theirs) {
  return mine.hash == theirs.hash && theirs.bytes == expected_bytes;
}

std::string Disagreement(std::string_view group, int my_rank, const LedgerEntry& mine, int64_t expected_bytes,
                         int their_rank, const LedgerEntry& theirs) {
  std::string text = Concat("ranks disagree on a call of group '", group, "'");
  if (mine.call != Call::kSend && mine.call != Call::kRecv) text += Concat(", its number ", mine.sequence);
  text += Concat(": rank ", my_rank, " calls ", Describe(mine), ", rank ", their_rank, " calls ",
                 Describe(theirs));
  if (theirs.bytes != expected_bytes) {
    text += Concat("; rank ", their_rank, " sends ", theirs.bytes, " bytes where rank ", my_rank, " expects ",
                   expected_bytes);
  } else if (SameText(mine, theirs)) {
    text += "; they differ in the counts of each rank";
  }
  return text + "; all members must make the same calls in the same order";
}

}  // namespace moebius
