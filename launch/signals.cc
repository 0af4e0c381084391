#include "launch/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <iterator>

#include "core/base/check.h"

namespace moebius {
namespace {

// A handler has no arguments of ours: the state must be static (the one place where this project has any).
std::atomic<int> first_signal{0};
std::atomic<int> hard_signals{0};
std::atomic<bool> reader_left{false};  // SIGPIPE has come
std::atomic<bool> installed{false};
static_assert(std::atomic<int>::is_always_lock_free, "used in a signal handler");

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1, SIGHUP, SIGPIPE};
constexpr int kNumSignals = std::size(kSignals);
struct sigaction previous[kNumSignals];

void Handle(int number) {
  // A person asks twice by SIGINT or SIGTERM. The others come again and again by themselves: SIGUSR1 from
  // batch queues, which send SIGTERM after it, SIGHUP from a terminal that closes, SIGPIPE at every line.
  if ((number == SIGINT || number == SIGTERM) && hard_signals.fetch_add(1) > 0) {
    constexpr char kText[] = "\nmoebius: second signal, leaving at once\n";
    [[maybe_unused]] const ssize_t ignored = write(STDERR_FILENO, kText, sizeof kText - 1);
    _exit(128 + number);
  }
  if (number == SIGPIPE) reader_left = true;
  int none = 0;
  first_signal.compare_exchange_strong(none, number);
}

}  // namespace

StopSignals::StopSignals() {
  CHECK(!installed.exchange(true)) << "only one StopSignals at a time";
  first_signal = 0;
  hard_signals = 0;
  reader_left = false;
  struct sigaction action = {};
  action.sa_handler = Handle;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART | SA_ONSTACK;  // see SignalStack in core/backend/cpu/products.cc
  for (int i = 0; i < kNumSignals; ++i) {
    sigaction(kSignals[i], nullptr, &previous[i]);
    // nohup has SIGHUP ignored: such a run outlives its terminal.
    const bool may_stay_ignored = kSignals[i] == SIGHUP || kSignals[i] == SIGPIPE;
    if (may_stay_ignored && previous[i].sa_handler == SIG_IGN) continue;
    sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (int i = 0; i < kNumSignals; ++i) {
    // What is said last has no reader either, and must not end the process by another code.
    if (kSignals[i] == SIGPIPE && reader_left) {
      signal(SIGPIPE, SIG_IGN);
    } else {
      sigaction(kSignals[i], &previous[i], nullptr);
    }
  }
  installed = false;
}

int StopSignals::signal_number() const { return first_signal; }

}  // namespace moebius
