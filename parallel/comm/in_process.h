// The transport between threads: ranks of one process. Whoever posts the second end of a message copies from
// the sender's buffer into the receiver's, once, and wakes the other.
#pragma once

#include <memory>

#include "parallel/comm/transport.h"

namespace moebius {

// What the ranks share; outlives their transports.
class InProcessHub {
 public:
  explicit InProcessHub(int size);
  ~InProcessHub();
  InProcessHub(const InProcessHub&) = delete;
  InProcessHub& operator=(const InProcessHub&) = delete;

  std::unique_ptr<Transport> NewTransport(int rank);
  void Abort(const absl::Status& status);
  absl::Status status() const;

 private:
  friend class InProcessTransport;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moebius
