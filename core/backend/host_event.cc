#include "core/backend/host_event.h"

#include <algorithm>

namespace moebius {

int64_t HostEvent::Issue() {
  std::lock_guard lock(mutex_);
  return ++issued_;
}

int64_t HostEvent::Latest() {
  std::lock_guard lock(mutex_);
  return issued_;
}

void HostEvent::Finish(int64_t number) {
  // Notified under the lock: a waiter may destroy the event, or end, as soon as it has the lock.
  std::lock_guard lock(mutex_);
  if (number > done_) {
    Show(number);
    done_ = number;
  }
  changed_.notify_all();
  for (Stream* stream : polling_) stream->Wake();
  polling_.clear();
}

bool HostEvent::Poll(int64_t number, Stream* stream) {
  std::lock_guard lock(mutex_);
  if (done_ >= number) {
    std::erase(polling_, stream);
    return true;
  }
  if (std::find(polling_.begin(), polling_.end(), stream) == polling_.end()) polling_.push_back(stream);
  return false;
}

bool HostEvent::Done() {
  std::lock_guard lock(mutex_);
  return done_ >= issued_;
}

void HostEvent::WaitFor(int64_t number) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= number; });
}

}  // namespace moebius
