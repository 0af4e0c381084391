#include "core/backend/cpu/streams.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "core/base/check.h"
#include "core/base/log.h"

namespace moebius {

namespace {

// Records are numbered when they are asked for; a wait is for the number that was the latest at its call.
class CpuEvent final : public Event {
 public:
  int64_t Issue() {
    std::lock_guard lock(mutex_);
    return ++issued_;
  }
  int64_t Latest() {
    std::lock_guard lock(mutex_);
    return issued_;
  }
  void Finish(int64_t number) {
    // Notified under the lock: a waiter may destroy the event as soon as it has the lock.
    std::lock_guard lock(mutex_);
    if (number > done_) done_ = number;
    changed_.notify_all();
  }
  void WaitFor(int64_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ >= number; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t issued_ = 0;
  int64_t done_ = 0;
};

class ComputeStream final : public Stream {
 public:
  StreamKind kind() const override { return StreamKind::kCompute; }
  void Enqueue(std::function<void()> work) override { work(); }
  void Record(Event& event) override {
    CpuEvent& e = static_cast<CpuEvent&>(event);
    e.Finish(e.Issue());
  }
  void Wait(Event& event) override {
    CpuEvent& e = static_cast<CpuEvent&>(event);
    e.WaitFor(e.Latest());
  }
  void Synchronize() override {}
};

class ExchangeStream final : public Stream {
 public:
  ExchangeStream()
      : thread_([this, rank = LogRank()] {
          SetLogRank(rank);
          Loop();
        }) {}

  ~ExchangeStream() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  StreamKind kind() const override { return StreamKind::kExchange; }

  void Enqueue(std::function<void()> work) override {
    {
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
    }
    changed_.notify_all();
  }
  void Record(Event& event) override {
    CpuEvent& e = static_cast<CpuEvent&>(event);
    Enqueue([&e, number = e.Issue()] { e.Finish(number); });
  }
  void Wait(Event& event) override {
    CpuEvent& e = static_cast<CpuEvent&>(event);
    Enqueue([&e, number = e.Latest()] { e.WaitFor(number); });
  }
  void Synchronize() override {
    std::unique_lock lock(mutex_);
    empty_.wait(lock, [&] { return queue_.empty() && !busy_; });
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;  // stopped, and all that was queued is done
      std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      work();
      work = nullptr;  // what it captured dies here, before Synchronize returns
      lock.lock();
      busy_ = false;
      if (queue_.empty()) empty_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable empty_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

std::unique_ptr<Stream> NewCpuStream(StreamKind kind) {
  if (kind == StreamKind::kExchange) return std::make_unique<ExchangeStream>();
  return std::make_unique<ComputeStream>();
}

std::unique_ptr<Event> NewCpuEvent() { return std::make_unique<CpuEvent>(); }

}  // namespace moebius
