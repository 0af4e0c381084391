// A priority queue of places by rank that gives out a whole rank at once: what merging a long piece needs.
// Pushing is O(1), and places come in ascending order, so that memory is walked and not jumped about in as a
// heap would.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace moebius {

class RankQueue {
 public:
  // Ranks may be 0 to num_ranks - 1. Call while empty.
  void Reserve(size_t num_ranks) {
    if (heads_.size() >= num_ranks) return;
    heads_.assign(num_ranks, kNone);
    used_.assign(num_ranks / 64 + 1, 0);
    used_words_.assign(num_ranks / 4096 + 1, 0);
  }

  void Push(uint32_t rank, uint32_t place) {
    uint32_t& head = heads_[rank];
    if (head == kNone) {
      used_[rank >> 6] |= uint64_t{1} << (rank & 63);
      used_words_[rank >> 12] |= uint64_t{1} << (rank >> 6 & 63);
      lowest_word_ = std::min<size_t>(lowest_word_, rank >> 12);
    }
    nodes_.push_back({place, head});
    head = static_cast<uint32_t>(nodes_.size() - 1);
  }

  // Takes all places of the lowest rank, ascending; false when there is nothing.
  bool PopLowest(uint32_t* rank, std::vector<uint32_t>* places) {
    places->clear();
    while (lowest_word_ < used_words_.size() && used_words_[lowest_word_] == 0) ++lowest_word_;
    if (lowest_word_ >= used_words_.size()) {
      nodes_.clear();
      return false;
    }
    const size_t word = lowest_word_ << 6 | __builtin_ctzll(used_words_[lowest_word_]);
    *rank = static_cast<uint32_t>(word << 6 | __builtin_ctzll(used_[word]));
    used_[word] &= used_[word] - 1;
    if (used_[word] == 0) used_words_[lowest_word_] &= used_words_[lowest_word_] - 1;
    bool descending = true;  // mostly they were pushed in ascending order
    for (uint32_t node = heads_[*rank]; node != kNone; node = nodes_[node].next) {
      descending = descending && (places->empty() || nodes_[node].place <= places->back());
      places->push_back(nodes_[node].place);
    }
    heads_[*rank] = kNone;
    if (descending) {
      std::reverse(places->begin(), places->end());
    } else {
      std::sort(places->begin(), places->end());
    }
    return true;
  }

  // Gives memory of the places back. Call while empty.
  void Release() { nodes_ = {}; }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Node {
    uint32_t place, next;
  };
  std::vector<uint32_t> heads_;  // by rank: the last pushed node
  std::vector<Node> nodes_;
  std::vector<uint64_t> used_,
      used_words_;          // a bit for each rank that has places, one for each word of those
  size_t lowest_word_ = 0;  // words of used_words_ below are 0
};

}  // namespace moebius
