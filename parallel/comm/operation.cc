#include "parallel/comm/operation.h"

#include <algorithm>
#include <iterator>

#include "core/base/strings.h"

namespace moebius {

bool Operation::Poll(Stream& stream) {
  if (!begun_) Begin(stream);
  while (TestOpen()) {
    // Once the world has failed nothing more is sent, and what has arrived means nothing.
    const bool failed = !state_->transport->status().ok();
    if (work_ == nullptr && !failed && phases_[phase_].then) work_ = phases_[phase_].then();
    if (work_ != nullptr && !work_->Done()) return false;
    work_ = nullptr;
    phases_[phase_].then = nullptr;  // gives its scratch back
    if (failed || ++phase_ == phases_.size()) {
      state_->open.End(record_);
      return true;
    }
    Post(phases_[phase_], stream);
  }
  return false;
}

void Operation::Begin(Stream& stream) {
  begun_ = true;
  record_ = state_->open.Begin(spec_.entry, spec_.group->name);
  phases_ = spec_.plan();
  if (phases_.empty()) phases_.emplace_back();
  if (!state_->transport->status().ok()) return;
  if (state_->ledger) AddLedger(phases_[0]);
  Post(phases_[0], stream);
}

void Operation::AddLedger(MessagePhase& first) {
  const auto bytes_of = [&](int peer, std::vector<Message> MessagePhase::*direction) {
    int64_t bytes = 0;
    for (const MessagePhase& phase : phases_) {
      for (const Message& message : phase.*direction) bytes += message.peer == peer ? message.bytes() : 0;
    }
    return bytes;
  };
  for (const int peer : spec_.announce_to) {
    announced_.push_back(spec_.entry);
    announced_.back().bytes = bytes_of(peer, &MessagePhase::sends);
  }
  for (const int peer : spec_.hear_from) expected_bytes_.push_back(bytes_of(peer, &MessagePhase::receives));
  heard_.resize(spec_.hear_from.size());

  const auto entry_message = [&](int peer, LedgerEntry* entry) {
    return Message{peer, spec_.ledger_tag, {{entry, sizeof(LedgerEntry)}}};
  };
  std::vector<Message> sends, receives;
  for (size_t i = 0; i < announced_.size(); ++i) {
    sends.push_back(entry_message(spec_.announce_to[i], &announced_[i]));
  }
  for (size_t i = 0; i < heard_.size(); ++i) {
    receives.push_back(entry_message(spec_.hear_from[i], &heard_[i]));
  }
  first.sends.insert(first.sends.begin(), sends.begin(), sends.end());
  first.receives.insert(first.receives.begin(), receives.begin(), receives.end());
}

void Operation::Post(const MessagePhase& phase, Stream& stream) {
  for (const Message& message : phase.receives) {
    open_.push_back(
        {state_->transport->PostReceive(message, stream), message.peer, false, message.tag.IsLedger()});
  }
  for (const Message& message : phase.sends) {
    open_.push_back({state_->transport->PostSend(message, stream), message.peer, true, false});
  }
}

bool Operation::TestOpen() {
  (void)state_->transport->status();  // hears of a peer's failure, which ends what is open
  std::erase_if(open_, [&](Open& open) {
    const Advance progress = state_->transport->Test(*open.request);
    // With a ledger the receiver has been told what was sent, and says more than a size.
    if (progress == Advance::kWrongSize && !(open.is_send && state_->ledger)) wrong_size_from_ = open.peer;
    if (progress == Advance::kDone && open.hears) Compare(open.peer);
    return progress != Advance::kOpen;
  });
  if (wrong_size_from_ >= 0) FailForSize();
  if (open_.size() != reported_ && !open_.empty()) {
    reported_ = open_.size();
    std::vector<int> waiting_for;
    for (const Open& open : open_) waiting_for.push_back(open.peer);
    std::sort(waiting_for.begin(), waiting_for.end());
    waiting_for.erase(std::unique(waiting_for.begin(), waiting_for.end()), waiting_for.end());
    state_->open.SetWaitingFor(record_, waiting_for);
  }
  return open_.empty();
}

void Operation::Compare(int peer) {
  if (!state_->transport->status().ok()) return;  // ended without an entry
  const size_t i = std::find(spec_.hear_from.begin(), spec_.hear_from.end(), peer) - spec_.hear_from.begin();
  if (Agrees(spec_.entry, expected_bytes_[i], heard_[i])) return;
  state_->transport->Abort(absl::InternalError(Disagreement(
      spec_.group->name, state_->transport->rank(), spec_.entry, expected_bytes_[i], peer, heard_[i])));
}

// The peer's ledger entry says more than a wrong size does; it was sent first, so it is here or will be.
void Operation::FailForSize() {
  for (const Open& open : open_) {
    if (open.hears && open.peer == wrong_size_from_) return;
  }
  state_->transport->Abort(absl::InternalError(Concat(
      "a message between rank ", state_->transport->rank(), " and rank ", wrong_size_from_,
      " has another size on each end: ", Describe(spec_.entry), " in group '", spec_.group->name, "'")));
  wrong_size_from_ = -1;
}

}  // namespace moebius
