// Stopping on request. SIGINT, SIGTERM, SIGHUP (the terminal was closed), SIGPIPE (what reads standard output
// has ended; both ignored where they were before, as under nohup) and SIGUSR1 (batch queues send it ahead of
// the end) set a flag that the training loop looks at after each step; a second SIGINT or SIGTERM leaves at
// once with 128 + n.
#pragma once

namespace moebius {

// Handlers are process-wide, so one at a time: CHECK. The destructor puts the earlier handlers back.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool stop_requested() const { return signal_number() != 0; }
  // The first one that arrived, 0 for none.
  int signal_number() const;
};

}  // namespace moebius
