// Byte pair encoding and its training as the definition says them, slow and plain: what the fast ones must
// equal.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace moebius {

// Merges the pair of lowest rank, the leftmost on a tie, until no pair has one. rank and result by pair.
inline std::vector<int32_t> NaiveMerge(
    std::vector<int32_t> symbols,
    const std::map<std::pair<int32_t, int32_t>, std::pair<int32_t, int32_t>>& merges) {
  for (;;) {
    int32_t best_rank = INT32_MAX, result = 0;
    size_t best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = merges.find({symbols[i], symbols[i + 1]});
      if (found != merges.end() && found->second.first < best_rank) {
        best_rank = found->second.first;
        result = found->second.second;
        best = i;
      }
    }
    if (best_rank == INT32_MAX) return symbols;
    symbols[best] = result;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

// The pairs that training merges, in order: always the most frequent, on a tie the one with the lower ids.
// `words`: symbols and count of each word. The new ids go on from `next_id`.
inline std::vector<std::pair<int32_t, int32_t>> NaiveTrain(
    std::vector<std::pair<std::vector<int32_t>, int64_t>> words, int32_t next_id, int num_merges) {
  std::vector<std::pair<int32_t, int32_t>> merges;
  while (static_cast<int>(merges.size()) < num_merges) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [symbols, count] : words) {
      for (size_t i = 0; i + 1 < symbols.size(); ++i) counts[{symbols[i], symbols[i + 1]}] += count;
    }
    auto best = counts.end();
    for (auto pair = counts.begin(); pair != counts.end(); ++pair) {
      if (best == counts.end() || pair->second > best->second) best = pair;
    }
    if (best == counts.end()) break;
    merges.push_back(best->first);
    for (auto& [symbols, count] : words) {
      std::vector<int32_t> merged;
      for (size_t i = 0; i < symbols.size(); ++i) {
        if (i + 1 < symbols.size() && std::pair(symbols[i], symbols[i + 1]) == best->first) {
          merged.push_back(next_id);
          ++i;
        } else {
          merged.push_back(symbols[i]);
        }
      }
      symbols = std::move(merged);
    }
    ++next_id;
  }
  return merges;
}

}  // namespace moebius
