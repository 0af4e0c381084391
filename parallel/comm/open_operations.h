// The calls of one rank that have begun and are not done, for a watchdog in another thread; and those that
// have ended, for a timeline.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/comm/ledger.h"

namespace moebius {

class OpenOperations {
 public:
  struct Record {
    LedgerEntry entry;
    std::string group;
    std::vector<int> waiting_for;  // world ranks whose messages are still out
    std::chrono::steady_clock::time_point since;
  };
  using Handle = std::list<Record>::iterator;

  Handle Begin(const LedgerEntry& entry, const std::string& group);
  void SetWaitingFor(Handle handle, const std::vector<int>& world_ranks);
  void End(Handle handle);
  // Gets every record that ends from now on, in the exchange thread; null: nobody does.
  using Sink = std::function<void(const Record& record, std::chrono::steady_clock::time_point end)>;
  void SetSink(Sink sink);

  // The oldest first, one a line: "AllToAllV of U8 for 'dispatch rows' (layer 3, index 4) in group 'expert',
  // open for 12.3s, waits for ranks 1, 5". Empty when there is none.
  std::string Text() const;
  double OldestSeconds() const;  // 0 when there is none

 private:
  mutable std::mutex mutex_;
  std::list<Record> records_;
  Sink sink_;
};

}  // namespace moebius
