// The exchange stream of every backend: a queue of host functions, served by one communication thread that
// sleeps between polls. Its events are HostEvents.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>

#include "core/backend/backend.h"

namespace moebius {

// While polled work is open and nothing happens: spin as long as a wake-up costs, then sleep for a sixteenth
// of the time since something happened. So polling costs little however long the wait, and adds little to it.
constexpr std::chrono::microseconds kPollSpin{10};
inline std::chrono::steady_clock::duration PollPause(std::chrono::steady_clock::duration idle) {
  return std::clamp<std::chrono::steady_clock::duration>(idle / 16, std::chrono::microseconds(20),
                                                         std::chrono::microseconds(1000));
}

// The communication thread: serves its streams in turn, one piece of work each, so that a polled one that is
// not done yet holds up nobody else. Starts with the first stream and outlives them all.
class ExchangeThread {
 public:
  explicit ExchangeThread(DeviceLink* link = nullptr);  // of its streams
  ~ExchangeThread();
  ExchangeThread(const ExchangeThread&) = delete;
  ExchangeThread& operator=(const ExchangeThread&) = delete;

  // The stream's destructor waits for what is queued on it.
  std::unique_ptr<Stream> NewStream();

  // Whether the caller is such a thread.
  static bool Here();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moebius
