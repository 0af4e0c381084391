#include "core/backend/exchange_thread.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/backend/host_event.h"
#include "core/base/check.h"
#include "core/base/log.h"

namespace moebius {

namespace {

using Clock = std::chrono::steady_clock;

thread_local bool here = false;

}  // namespace

class ExchangeThread::Impl {
 public:
  // A queue of polled work, guarded by the thread's mutex. Only the thread takes items out, so the front one
  // stays put while it runs.
  class ExchangeStream final : public Stream {
   public:
    explicit ExchangeStream(Impl* thread) : thread_(thread) { thread_->Add(this); }
    ~ExchangeStream() override {
      Synchronize();
      thread_->Remove(this);
    }

    StreamKind kind() const override { return StreamKind::kExchange; }
    void Enqueue(std::function<void()> work) override {
      EnqueuePolled([work = std::move(work)] {
        work();
        return true;
      });
    }
    void EnqueuePolled(std::function<bool()> poll) override { thread_->Push(this, std::move(poll)); }
    void Wake() override { thread_->Wake(); }
    void Record(Event& event) override {
      HostEvent& e = static_cast<HostEvent&>(event);
      Enqueue([&e, number = e.Issue()] { e.Finish(number); });
    }
    void Wait(Event& event) override {
      HostEvent& e = static_cast<HostEvent&>(event);
      EnqueuePolled([this, &e, number = e.Latest()] { return e.Poll(number, this); });
    }
    void Synchronize() override { thread_->Drain(this); }
    DeviceLink* link() override { return thread_->link_; }

   private:
    friend class Impl;
    Impl* thread_;
    std::deque<std::function<bool()>> items_;
  };

  explicit Impl(DeviceLink* link) : link_(link) {}
  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      CHECK(streams_.empty()) << "a backend must outlive its streams";
      stop_ = true;
      Signal();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Add(ExchangeStream* stream) {
    std::lock_guard lock(mutex_);
    streams_.push_back(stream);
    if (thread_.joinable()) return;
    thread_ = std::thread([this, rank = LogRank()] {
      SetLogRank(rank);
      here = true;
      prctl(PR_SET_TIMERSLACK, 1000);  // ns; the default of 50 us is longer than the shortest sleep
      Loop();
    });
  }
  void Remove(ExchangeStream* stream) {
    std::lock_guard lock(mutex_);
    std::erase(streams_, stream);
    Signal();  // the round under way may have skipped one
  }
  void Push(ExchangeStream* stream, std::function<bool()> item) {
    std::lock_guard lock(mutex_);
    stream->items_.push_back(std::move(item));
    Signal();
  }
  void Wake() {
    std::lock_guard lock(mutex_);
    Signal();
  }
  void Drain(const ExchangeStream* stream) {
    std::unique_lock lock(mutex_);
    CHECK(std::this_thread::get_id() != thread_.get_id()) << "the exchange thread would wait for itself";
    drained_.wait(lock, [&] { return stream->items_.empty(); });
  }

  // Needs the lock. Waking a thread that is not asleep would cost a system call.
  void Signal() {
    ++signals_;
    if (asleep_) changed_.notify_one();
  }

  void Loop() {
    std::unique_lock lock(mutex_);
    Clock::time_point last_progress = Clock::now();
    while (!stop_) {
      const uint64_t seen = signals_;
      bool progress = false, open = false;
      for (size_t i = 0; i < streams_.size(); ++i) {
        if (streams_[i]->items_.empty()) continue;
        (RunFront(streams_[i], lock) ? progress : open) = true;
      }
      const auto signalled = [&] { return stop_ || signals_ != seen; };
      if (progress || signalled()) {
        last_progress = Clock::now();
        continue;
      }
      asleep_ = true;
      if (!open) {
        changed_.wait(lock, signalled);
        last_progress = Clock::now();
      } else if (const Clock::duration idle = Clock::now() - last_progress; idle > kPollSpin) {
        changed_.wait_for(lock, PollPause(idle), signalled);
      }
      asleep_ = false;
    }
  }

  // Runs one item without the lock; true, and the item gone, when it is done.
  bool RunFront(ExchangeStream* stream, std::unique_lock<std::mutex>& lock) {
    std::function<bool()>& item = stream->items_.front();
    lock.unlock();
    const bool done = item();
    if (done) item = nullptr;  // what it captured dies here, before Drain returns
    lock.lock();
    if (!done) return false;
    stream->items_.pop_front();
    if (stream->items_.empty()) drained_.notify_all();
    return true;
  }

  DeviceLink* const link_;
  std::mutex mutex_;
  std::condition_variable changed_;  // signals_ or stop_
  std::condition_variable drained_;  // some stream is empty
  std::vector<ExchangeStream*> streams_;
  uint64_t signals_ = 0;  // grows when there may be something to do
  bool asleep_ = false;
  bool stop_ = false;
  std::thread thread_;
};

ExchangeThread::ExchangeThread(DeviceLink* link) : impl_(std::make_unique<Impl>(link)) {}
ExchangeThread::~ExchangeThread() = default;
std::unique_ptr<Stream> ExchangeThread::NewStream() {
  return std::make_unique<Impl::ExchangeStream>(impl_.get());
}

bool ExchangeThread::Here() { return here; }

}  // namespace moebius
