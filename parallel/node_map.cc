#include "parallel/node_map.h"

#include <algorithm>
#include <map>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {

NodeMap::NodeMap(const std::vector<int>& node_of_member) {
  std::map<int, int> number;
  for (size_t m = 0; m < node_of_member.size(); ++m) {
    const auto [found, fresh] = number.emplace(node_of_member[m], nodes());
    if (fresh) members_.emplace_back();
    node_of_.push_back(found->second);
    local_of_.push_back(static_cast<int>(members_[found->second].size()));
    members_[found->second].push_back(static_cast<int>(m));
  }
}

bool NodeMap::even() const {
  return std::all_of(members_.begin(), members_.end(),
                     [&](const auto& node) { return node.size() == members_[0].size(); });
}

NodeMap NodesOf(const Communicator& group, const std::vector<int>& node_of_rank) {
  std::vector<int> nodes;
  for (const int rank : group.world_ranks()) nodes.push_back(node_of_rank[rank]);
  return NodeMap(nodes);
}

bool IsTwoLevel(ExchangeKind kind, const NodeMap& nodes) {
  return kind == ExchangeKind::kTwoLevel ||
         (kind == ExchangeKind::kAuto && nodes.nodes() > 1 && nodes.even());
}

namespace {

// The nodes of the expert group that begins with rank `first`: expert ranks are neighbours.
NodeMap NodesOfGroup(const Layout& layout, const std::vector<int>& node_of_rank, int first) {
  const auto begin = node_of_rank.begin() + first;
  return NodeMap(std::vector<int>(begin, begin + layout.expert));
}

}  // namespace

bool HostTouchesRows(const Layout& layout, const std::vector<int>& node_of_rank) {
  if (layout.expert == 1) return false;
  const ExchangeOptions& options = layout.exchange;
  if (options.dispatch != WireFormat::kAct || options.combine != WireFormat::kAct) return true;
  for (int first = 0; first < layout.ranks(); first += layout.expert) {
    if (IsTwoLevel(options.kind, NodesOfGroup(layout, node_of_rank, first))) return true;
  }
  return false;
}

absl::Status CheckExchange(const Layout& layout, const std::vector<int>& node_of_rank) {
  if (layout.exchange.combine == WireFormat::kF8) {
    return UsageError("parallel.combine is FP8, which sums do not survive; use ACT or BF16");
  }
  if (layout.exchange.kind == ExchangeKind::kGather &&
      (layout.exchange.dispatch != WireFormat::kAct || layout.exchange.combine != WireFormat::kAct)) {
    return UsageError(
        "parallel.exchange is GATHER, which sends rows as they are computed; leave parallel.dispatch and "
        "parallel.combine ACT, or set parallel { exchange: FLAT }");
  }
  if (layout.exchange.kind != ExchangeKind::kTwoLevel) return absl::OkStatus();
  for (int first = 0; first < layout.ranks(); first += layout.expert) {
    if (NodesOfGroup(layout, node_of_rank, first).even()) continue;
    return UsageError(
        Concat("parallel.exchange is TWO_LEVEL; the expert group of ranks ", first, " to ",
               first + layout.expert - 1,
               " has not equally many ranks on each of its nodes; make parallel.ranks_per_node and "
               "parallel.expert (",
               layout.expert, ") multiples of each other, or set parallel { exchange: FLAT }"));
  }
  return absl::OkStatus();
}

}  // namespace moebius
