// Who sends what in the two-level exchange: lists of numbers on the host, made from routing alone.
//
// Legend: N nodes of L members each, E experts a member; experts of a node are numbered 0 .. L * E - 1.
// A source sends each node that a token needs the token once; the member with the source's local index there,
// its forwarder, hands the token on to the node's experts. A source is the forwarder of its own node.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/exchange/row_sums.h"
#include "parallel/node_map.h"

namespace moebius {

// What a source sends one node, in token order.
struct NodeRoute {
  std::vector<int32_t> tokens;   // with a choice there
  std::vector<int32_t> choices;  // t * K + k, in this order
  // Of each choice: its expert in the node; ~expert for the first choice of a token. Travels with the rows.
  std::vector<int32_t> codes;
};
// experts [T, K]: global numbers, L * E on each node of `nodes`.
std::vector<NodeRoute> PlanSource(const std::vector<int32_t>& experts, int64_t top_k,
                                  int64_t experts_per_rank, const NodeMap& nodes);

// What a forwarder holds: the tokens of all sources of its local index, by node, then token.
struct ForwardPlan {
  std::vector<int32_t> first_choice;     // [tokens + 1] of each token held
  std::vector<int32_t> row_of;           // [choices]: its row when sorted by expert
  std::vector<int32_t> token_of;         // [choices] of a sorted row: the token held
  std::vector<int64_t> offsets;          // [L * E + 1]: sorted rows of each expert of the node
  std::vector<int64_t> counts;           // [L, E, N]: sorted rows of each expert that come from each node
  std::vector<int32_t> first_of_source;  // [N + 1]: tokens held of each node

  int64_t choices() const { return static_cast<int64_t>(row_of.size()); }
  // First choice of those of source node n, and one past the last.
  int64_t first_choice_of(int n) const { return first_choice[first_of_source[n]]; }
};
// codes[n]: what the source on node n has sent.
ForwardPlan PlanForward(const std::vector<std::vector<int32_t>>& codes, int locals, int64_t experts_per_rank);

// The rows of other nodes' tokens that a forwarder sums before they leave: row + `first` of each choice.
// Group g is the g-th token that is not of node `own`.
RowGroups ForeignSums(const ForwardPlan& plan, int own, int64_t first);

// Where the rows of a member's experts lie: sorted by expert, then source rank, then token.
struct ReceivePlan {
  std::vector<int64_t> offsets;  // [E + 1]
  std::vector<int64_t> starts;   // [L, E, N]: of the rows that forwarder l brings of node n for expert e
};
// counts [L, E, N]: rows from each forwarder.
ReceivePlan PlanReceive(const std::vector<int64_t>& counts, int64_t experts_per_rank, const NodeMap& nodes);

// What comes back to a source lies in one buffer: a row for each token sent to another node (by node, then
// token), then the sorted rows of its own ForwardPlan.
struct ReturnPlan {
  int64_t foreign_tokens = 0;
  int64_t foreign_choices = 0;
  std::vector<int32_t> row_of;     // [T, K]: the terms of each token's sum (row_sums.h)
  std::vector<int32_t> number_of;  // [T * K]: numbers of foreign choices, then of the sorted rows
};
ReturnPlan PlanReturn(const std::vector<NodeRoute>& routes, const ForwardPlan& forward, int64_t tokens,
                      int64_t top_k, int own);

}  // namespace moebius
