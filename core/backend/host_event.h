// The event that host threads wait for: a counter under a lock. What the exchange streams of every backend
// and the compute stream of the CPU record; a device's event adds a flag that its streams can write and wait
// for.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "core/backend/backend.h"

namespace moebius {

// Records are numbered when they are asked for; a wait is for the number that was the latest at its call.
class HostEvent : public Event {
 public:
  int64_t Issue();
  int64_t Latest();
  void Finish(int64_t number);
  // Whether `number` is done; if not, the next Finish wakes `stream`, which asks until it is.
  virtual bool Poll(int64_t number, Stream* stream);
  void WaitFor(int64_t number);
  bool Done() override;

 private:
  // Tells a device, under the lock: who sees it there may destroy the event only behind the lock too.
  virtual void Show(int64_t) {}

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Stream*> polling_;
  int64_t issued_ = 0;
  int64_t done_ = 0;
};

}  // namespace moebius
