// Link classes: how much goes over each, and, for studies, a slower link than the machine has.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/comm/transport.h"

namespace moebius {

enum LinkClass { kLinkSelf, kLinkWithinNode, kLinkBetweenNodes };
inline constexpr int kNumLinkClasses = 3;

// A message takes latency_s + bytes / bytes_per_s. A rank has one way out and one way in for each class;
// messages on one way go one after another (their latencies overlap). 0: as fast as the machine.
struct LinkSpeed {
  double bytes_per_s = 0;
  double latency_s = 0;
};
using LinkSpeeds = std::array<LinkSpeed, kNumLinkClasses>;

// Since the start. Ledger messages are counted apart, so that bytes are those of the callers' data.
struct TrafficCounters {
  struct Link {
    int64_t sent_messages = 0, sent_bytes = 0;
    int64_t received_messages = 0, received_bytes = 0;
    int64_t ledger_messages = 0, ledger_bytes = 0;  // sent
  };
  std::array<Link, kNumLinkClasses> links;

  const Link& operator[](LinkClass link) const { return links[link]; }
};

// A transport over another one that counts and slows down. A received message's time starts when it has
// really arrived: that needs no clock common to both ends, and is never earlier than its sending.
class LinkTransport : public Transport {
 public:
  virtual TrafficCounters traffic() const = 0;  // from any thread
};
// node_of_rank [size]: the ranks of one number share a node.
std::unique_ptr<LinkTransport> NewLinkTransport(std::unique_ptr<Transport> inner,
                                                const std::vector<int>& node_of_rank,
                                                const LinkSpeeds& speeds);

}  // namespace moebius
