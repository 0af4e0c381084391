// Batches made ahead of time by one background thread, so that a training step never waits for data.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "data/loader.h"

namespace moebius {

class Prefetcher {
 public:
  // Samples [first, first + count) of batch b = 0, 1, ...: the caller's batch ramp, and its rank's share.
  struct Range {
    int64_t first = 0;
    int64_t count = 0;
  };
  using Ranges = std::function<Range(int64_t batch)>;

  // `loader` must outlive this. At most `depth` >= 1 finished batches wait; `ranges` is called on the
  // background thread, for batches 0, 1, ... in order.
  Prefetcher(const Loader* loader, int64_t depth, Ranges ranges);
  // Stops the thread; batches that nobody took are dropped.
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // The next batch in order; waits for it. After an error of the loader every further call returns that
  // error.
  absl::Status Next(Batch* batch);

 private:
  void Run();

  const Loader* loader_;
  const size_t depth_;
  const Ranges ranges_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  absl::Status error_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace moebius
