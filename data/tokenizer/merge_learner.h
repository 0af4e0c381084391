// The merge loop of BPE training over counted words: incremental pair counts and a heap, in time proportional
// to the occurrences that are merged, however long a word is.
#pragma once

#include <cstdint>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/word_counts.h"

namespace moebius {

class MergeLearner {
 public:
  // `tokens`: the first ids as strings of the byte alphabet; byte_ids: the id of each byte among them.
  // `words` is only read here. Needs 16 bytes of memory a byte of distinct words; CHECKs that these are below
  // 2^32.
  MergeLearner(const WordCounts& words, std::vector<std::string> tokens,
               const std::vector<int32_t>& byte_ids);

  // Merges until there are `vocab_size` tokens or no pair has `min_count`. Once.
  void Learn(int32_t vocab_size, int64_t min_count);

  struct Merge {
    int32_t left, right, result;
  };
  const std::vector<std::string>& tokens() const { return tokens_; }
  const std::vector<Merge>& merges() const { return merges_; }

 private:
  using Pair = uint64_t;  // left << 32 | right: orders by left, then right
  using Positions = std::vector<uint32_t>;
  static constexpr uint32_t kNone = ~uint32_t{0};

  // A linked list through each word; a symbol merged into its left neighbour keeps its place with id -1.
  struct Symbol {
    int32_t id;
    uint32_t word, previous, next;
  };
  // A candidate with the count it had when it was queued and where it was found then, ascending. A pair can
  // be queued more than once: when a token arises a second time, from other parts.
  struct Candidate {
    int64_t count;
    Pair pair;
    uint32_t positions;  // index in positions_
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };
  struct PairState {
    int64_t count = 0;
    int32_t queued = 0;  // candidates of this pair in the queue
  };
  // What a merge changed for one neighbour: how often it stood there, and where the new pair now is.
  struct Change {
    int64_t count = 0;
    Positions positions;
  };

  void CountInitialPairs();
  void Queue(Pair pair, Positions positions);
  void Apply(Pair pair, int32_t result, const Positions& positions);
  void PublishChanges(Pair pair, int32_t result);
  Positions WholeWords(Pair pair, const Positions& positions) const;
  int32_t TokenFor(Pair pair);

  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int32_t> token_ids_;
  std::vector<Symbol> symbols_;
  std::vector<uint32_t> word_starts_;
  std::vector<int64_t> word_counts_;
  std::unordered_map<Pair, PairState> pairs_;
  std::vector<Positions> positions_;
  std::vector<uint32_t> free_positions_;
  std::priority_queue<Candidate> queue_;
  std::vector<Change> left_, right_;                   // by the neighbour's id
  std::vector<int32_t> changed_left_, changed_right_;  // ids with a change
  std::vector<Merge> merges_;
};

}  // namespace moebius
