#include "parallel/comm/links.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

namespace moebius {

namespace {

using Clock = std::chrono::steady_clock;

Clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

struct LinkRequest final : Transport::Request {
  std::unique_ptr<Transport::Request> inner;
  bool is_send = false;
  LinkClass link = kLinkSelf;
  int64_t bytes = 0;
  Clock::time_point due;
};

class ClassifiedTransport final : public LinkTransport {
 public:
  ClassifiedTransport(std::unique_ptr<Transport> inner, const std::vector<int>& node_of_rank,
                      const LinkSpeeds& speeds)
      : inner_(std::move(inner)), speeds_(speeds) {
    const int me = inner_->rank();
    for (int peer = 0; peer < inner_->size(); ++peer) {
      link_to_.push_back(peer == me                               ? kLinkSelf
                         : node_of_rank[peer] == node_of_rank[me] ? kLinkWithinNode
                                                                  : kLinkBetweenNodes);
    }
  }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }

  std::unique_ptr<Request> PostSend(const Message& message, Stream& stream) override {
    std::unique_ptr<LinkRequest> request = NewRequest(message);
    request->is_send = true;
    if (Slow(*request)) SetDue(*request, free_out_[request->link]);
    {
      std::lock_guard lock(mutex_);
      TrafficCounters::Link& count = traffic_.links[request->link];
      ++(message.tag.IsLedger() ? count.ledger_messages : count.sent_messages);
      (message.tag.IsLedger() ? count.ledger_bytes : count.sent_bytes) += request->bytes;
    }
    request->inner = inner_->PostSend(message, stream);
    return request;
  }

  std::unique_ptr<Request> PostReceive(const Message& message, Stream& stream) override {
    std::unique_ptr<LinkRequest> request = NewRequest(message);
    if (!message.tag.IsLedger()) {
      std::lock_guard lock(mutex_);
      ++traffic_.links[request->link].received_messages;
      traffic_.links[request->link].received_bytes += request->bytes;
    }
    request->inner = inner_->PostReceive(message, stream);
    return request;
  }

  Advance Test(Request& request) override {
    LinkRequest& r = static_cast<LinkRequest&>(request);
    if (r.inner) {
      const Advance progress = inner_->Test(*r.inner);
      if (progress != Advance::kDone || !Slow(r)) return progress;
      r.inner.reset();
      if (!r.is_send) SetDue(r, free_in_[r.link]);
    }
    return Clock::now() >= r.due || !inner_->status().ok() ? Advance::kDone : Advance::kOpen;
  }

  void Abort(const absl::Status& status) override { inner_->Abort(status); }
  absl::Status status() override { return inner_->status(); }
  void Close() override { inner_->Close(); }
  TrafficCounters traffic() const override {
    std::lock_guard lock(mutex_);
    return traffic_;
  }

 private:
  std::unique_ptr<LinkRequest> NewRequest(const Message& message) const {
    auto request = std::make_unique<LinkRequest>();
    request->link = link_to_[message.peer];
    request->bytes = message.bytes();
    return request;
  }
  bool Slow(const LinkRequest& request) const {
    const LinkSpeed& speed = speeds_[request.link];
    return speed.bytes_per_s > 0 || speed.latency_s > 0;
  }
  // `free`: when the way is free for the next message.
  void SetDue(LinkRequest& request, Clock::time_point& free) {
    const LinkSpeed& speed = speeds_[request.link];
    free = std::max(free, Clock::now());
    if (speed.bytes_per_s > 0) free += Seconds(static_cast<double>(request.bytes) / speed.bytes_per_s);
    request.due = free + Seconds(speed.latency_s);
  }

  const std::unique_ptr<Transport> inner_;
  const LinkSpeeds speeds_;
  std::vector<LinkClass> link_to_;  // by world rank
  // Of the exchange thread alone, as Post and Test are.
  std::array<Clock::time_point, kNumLinkClasses> free_out_, free_in_;
  mutable std::mutex mutex_;
  TrafficCounters traffic_;
};

}  // namespace

std::unique_ptr<LinkTransport> NewLinkTransport(std::unique_ptr<Transport> inner,
                                                const std::vector<int>& node_of_rank,
                                                const LinkSpeeds& speeds) {
  return std::make_unique<ClassifiedTransport>(std::move(inner), node_of_rank, speeds);
}

}  // namespace moebius
