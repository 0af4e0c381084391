#include "core/backend/cpu/compute_stream.h"

#include <chrono>
#include <thread>

#include "core/backend/exchange_thread.h"
#include "core/backend/host_event.h"

namespace moebius {
namespace {

class ComputeStream final : public Stream {
 public:
  StreamKind kind() const override { return StreamKind::kCompute; }
  void Enqueue(std::function<void()> work) override { work(); }
  void EnqueuePolled(std::function<bool()> poll) override {
    for (const std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now(); !poll();) {
      const std::chrono::steady_clock::duration idle = std::chrono::steady_clock::now() - begin;
      if (idle > kPollSpin) std::this_thread::sleep_for(PollPause(idle));
    }
  }
  void Wake() override {}  // its sleeps are short
  void Record(Event& event) override {
    HostEvent& e = static_cast<HostEvent&>(event);
    e.Finish(e.Issue());
  }
  void Wait(Event& event) override {
    HostEvent& e = static_cast<HostEvent&>(event);
    e.WaitFor(e.Latest());
  }
  void Synchronize() override {}
};

}  // namespace

std::unique_ptr<Stream> NewCpuComputeStream() { return std::make_unique<ComputeStream>(); }

}  // namespace moebius
