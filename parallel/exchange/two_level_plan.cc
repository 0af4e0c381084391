#include "parallel/exchange/two_level_plan.h"

#include <numeric>

#include "core/backend/kernel_args.h"
#include "core/base/check.h"

namespace moebius {

std::vector<NodeRoute> PlanSource(const std::vector<int32_t>& experts, int64_t top_k,
                                  int64_t experts_per_rank, const NodeMap& nodes) {
  std::vector<NodeRoute> routes(nodes.nodes());
  for (size_t choice = 0; choice < experts.size(); ++choice) {
    const int64_t rank = experts[choice] / experts_per_rank;
    CHECK(rank >= 0 && rank < nodes.nodes() * nodes.locals()) << experts[choice];
    NodeRoute& route = routes[nodes.node_of(static_cast<int>(rank))];
    const int32_t token = static_cast<int32_t>(choice / top_k);
    const bool first = route.tokens.empty() || route.tokens.back() != token;
    if (first) route.tokens.push_back(token);
    const int32_t code = static_cast<int32_t>(nodes.local_of(static_cast<int>(rank)) * experts_per_rank +
                                              experts[choice] % experts_per_rank);
    route.choices.push_back(static_cast<int32_t>(choice));
    route.codes.push_back(first ? ~code : code);
  }
  return routes;
}

ForwardPlan PlanForward(const std::vector<std::vector<int32_t>>& codes, int locals,
                        int64_t experts_per_rank) {
  const int64_t sources = static_cast<int64_t>(codes.size()), experts = locals * experts_per_rank;
  const auto expert_of = [](int32_t code) { return code < 0 ? ~code : code; };
  ForwardPlan plan;
  plan.counts.assign(experts * sources, 0);
  plan.first_of_source.push_back(0);
  int32_t choice = 0;
  for (int64_t n = 0; n < sources; ++n) {
    for (const int32_t code : codes[n]) {
      if (code < 0) plan.first_choice.push_back(choice);
      ++plan.counts[expert_of(code) * sources + n];
      ++choice;
    }
    plan.first_of_source.push_back(static_cast<int32_t>(plan.first_choice.size()));
  }
  plan.first_choice.push_back(choice);
  plan.offsets.assign(experts + 1, 0);
  for (int64_t e = 0; e < experts; ++e) {
    plan.offsets[e + 1] = std::accumulate(plan.counts.begin() + e * sources,
                                          plan.counts.begin() + (e + 1) * sources, plan.offsets[e]);
  }
  std::vector<int64_t> next(plan.offsets.begin(), plan.offsets.end() - 1);
  plan.token_of.resize(choice);
  int32_t token = -1;
  for (const auto& source : codes) {
    for (const int32_t code : source) {
      if (code < 0) ++token;
      const int64_t row = next[expert_of(code)]++;
      plan.row_of.push_back(static_cast<int32_t>(row));
      plan.token_of[row] = token;
    }
  }
  return plan;
}

RowGroups ForeignSums(const ForwardPlan& plan, int own, int64_t first) {
  RowGroups groups;
  std::vector<int32_t> group;
  for (size_t n = 0; n + 1 < plan.first_of_source.size(); ++n) {
    if (static_cast<int>(n) == own) continue;
    for (int32_t t = plan.first_of_source[n]; t < plan.first_of_source[n + 1]; ++t) {
      group.clear();
      for (int32_t c = plan.first_choice[t]; c < plan.first_choice[t + 1]; ++c) {
        group.push_back(static_cast<int32_t>(first + plan.row_of[c]));
      }
      groups.Add(group);
    }
  }
  return groups;
}

ReceivePlan PlanReceive(const std::vector<int64_t>& counts, int64_t experts_per_rank, const NodeMap& nodes) {
  ReceivePlan plan;
  plan.starts.resize(counts.size());
  plan.offsets.push_back(0);
  int64_t row = 0;
  for (int64_t e = 0; e < experts_per_rank; ++e) {
    for (int source = 0; source < nodes.nodes() * nodes.locals(); ++source) {
      const int64_t block =
          (nodes.local_of(source) * experts_per_rank + e) * nodes.nodes() + nodes.node_of(source);
      plan.starts[block] = row;
      row += counts[block];
    }
    plan.offsets.push_back(row);
  }
  return plan;
}

ReturnPlan PlanReturn(const std::vector<NodeRoute>& routes, const ForwardPlan& forward, int64_t tokens,
                      int64_t top_k, int own) {
  ReturnPlan plan;
  for (int n = 0; n < static_cast<int>(routes.size()); ++n) {
    if (n == own) continue;
    plan.foreign_tokens += static_cast<int64_t>(routes[n].tokens.size());
    plan.foreign_choices += static_cast<int64_t>(routes[n].choices.size());
  }
  plan.row_of.assign(tokens * top_k, kNoRow);
  plan.number_of.resize(tokens * top_k);
  std::vector<int32_t> terms(tokens, 0);
  const auto add = [&](int32_t token, int32_t row) { plan.row_of[token * top_k + terms[token]++] = row; };
  int32_t row = 0, number = 0;
  for (int n = 0; n < static_cast<int>(routes.size()); ++n) {
    if (n != own) {
      for (const int32_t token : routes[n].tokens) add(token, row++);
      for (const int32_t choice : routes[n].choices) plan.number_of[choice] = number++;
      continue;
    }
    const int64_t first = forward.first_choice_of(own);
    for (size_t c = 0; c < routes[n].choices.size(); ++c) {
      const int32_t sorted = forward.row_of[first + c];
      const int32_t choice = routes[n].choices[c];
      add(choice / static_cast<int32_t>(top_k), static_cast<int32_t>(plan.foreign_tokens) + sorted);
      plan.number_of[choice] = static_cast<int32_t>(plan.foreign_choices) + sorted;
    }
  }
  return plan;
}

}  // namespace moebius
