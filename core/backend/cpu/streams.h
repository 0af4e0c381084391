// Streams and events of the CPU backend. Compute runs inline in the caller's thread; all exchange streams of
// a backend are queues of one ExchangeThread, which sleeps unless something is queued.
#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace moebius {

// The communication thread: serves its streams in turn, one piece of work each, so that a polled one that is
// not done yet holds up nobody else. Starts with the first stream and outlives them all.
class ExchangeThread {
 public:
  ExchangeThread();
  ~ExchangeThread();
  ExchangeThread(const ExchangeThread&) = delete;
  ExchangeThread& operator=(const ExchangeThread&) = delete;

  // The stream's destructor waits for what is queued on it.
  std::unique_ptr<Stream> NewStream();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

std::unique_ptr<Stream> NewCpuComputeStream();
std::unique_ptr<Event> NewCpuEvent();

}  // namespace moebius
