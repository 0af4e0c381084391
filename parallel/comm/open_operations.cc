#include "parallel/comm/open_operations.h"

#include <utility>

#include "core/base/strings.h"

namespace moebius {

namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point time) {
  return std::chrono::duration<double>(Clock::now() - time).count();
}

}  // namespace

OpenOperations::Handle OpenOperations::Begin(const LedgerEntry& entry, const std::string& group) {
  std::lock_guard lock(mutex_);
  return records_.insert(records_.end(), Record{entry, group, {}, Clock::now()});
}

void OpenOperations::SetWaitingFor(Handle handle, const std::vector<int>& world_ranks) {
  std::lock_guard lock(mutex_);
  handle->waiting_for = world_ranks;
}

void OpenOperations::End(Handle handle) {
  std::lock_guard lock(mutex_);
  if (sink_) sink_(*handle, Clock::now());
  records_.erase(handle);
}

void OpenOperations::SetSink(Sink sink) {
  std::lock_guard lock(mutex_);
  sink_ = std::move(sink);
}

std::string OpenOperations::Text() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> lines;
  for (const Record& record : records_) {
    std::string line = Concat(Describe(record.entry), " in group '", record.group, "', open for ",
                              HumanSeconds(SecondsSince(record.since)));
    std::vector<std::string> ranks;
    for (const int rank : record.waiting_for) ranks.push_back(std::to_string(rank));
    if (!ranks.empty()) line += Concat(", waits for ", ranks.size() == 1 ? "rank " : "ranks ", Join(ranks));
    lines.push_back(std::move(line));
  }
  return Join(lines, "\n");
}

double OpenOperations::OldestSeconds() const {
  std::lock_guard lock(mutex_);
  return records_.empty() ? 0 : SecondsSince(records_.front().since);
}

}  // namespace moebius
