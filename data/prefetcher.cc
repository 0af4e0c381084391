#include "data/prefetcher.h"

#include <utility>

#include "core/base/check.h"
#include "core/base/log.h"

namespace moebius {

Prefetcher::Prefetcher(const Loader* loader, int64_t depth, Ranges ranges)
    : loader_(loader), depth_(static_cast<size_t>(depth)), ranges_(std::move(ranges)) {
  CHECK_GE(depth, 1);
  thread_ = std::thread([this, rank = LogRank()] {
    SetLogRank(rank);
    Run();
  });
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::Run() {
  for (int64_t b = 0;; ++b) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || ready_.size() < depth_; });
      if (stop_) return;
    }
    const Range range = ranges_(b);
    Batch batch;
    const absl::Status status = loader_->GetBatch(range.first, range.count, &batch);
    const std::lock_guard lock(mutex_);
    if (status.ok()) {
      ready_.push_back(std::move(batch));
    } else {
      error_ = status;
    }
    changed_.notify_all();
    if (!status.ok()) return;
  }
}

absl::Status Prefetcher::Next(Batch* batch) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || !error_.ok(); });
  if (ready_.empty()) return error_;
  *batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return absl::OkStatus();
}

}  // namespace moebius
