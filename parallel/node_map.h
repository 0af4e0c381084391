// The members of a group by node: which of them a message reaches without leaving the node.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "parallel/comm/communicator.h"
#include "parallel/layout.h"

namespace moebius {

// Nodes are numbered by their first member; a member's local index counts the members of its node before it.
class NodeMap {
 public:
  explicit NodeMap(const std::vector<int>& node_of_member);  // any numbers, equal on one node

  int nodes() const { return static_cast<int>(members_.size()); }
  int node_of(int member) const { return node_of_[member]; }
  int local_of(int member) const { return local_of_[member]; }
  int at(int node, int local) const { return members_[node][local]; }
  int members(int node) const { return static_cast<int>(members_[node].size()); }
  bool even() const;                         // equally many members on every node
  int locals() const { return members(0); }  // of an even map

 private:
  std::vector<int> node_of_, local_of_;
  std::vector<std::vector<int>> members_;  // by node
};

// Of a group of the world whose ranks lie on these nodes.
NodeMap NodesOf(const Communicator& group, const std::vector<int>& node_of_rank);

// Whether a group with these nodes goes two ways under `kind` (kTwoLevel: CheckExchange has been asked).
bool IsTwoLevel(ExchangeKind kind, const NodeMap& nodes);

// Whether host code rounds, packs or sums the rows that this layout exchanges, so that they have to lie where
// it reaches them: rows in another format than ACT, or an expert group that goes two ways. The same on all
// ranks.
bool HostTouchesRows(const Layout& layout, const std::vector<int>& node_of_rank);

// UsageError where layout.exchange wants two levels and an expert group does not lie evenly on its nodes, or
// sums in FP8.
absl::Status CheckExchange(const Layout& layout, const std::vector<int>& node_of_rank);

}  // namespace moebius
