// Byte pair encoding of one piece of text after another: the merges, a table of the words that are one token,
// and for each thread a cache of recent words. Knows nothing of files, special tokens or how text is split.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/pair_table.h"
#include "data/tokenizer/rank_queue.h"
#include "data/tokenizer/word_cache.h"

namespace moebius {

struct BpeMerge {
  int32_t left, right, result;  // token ids
};

struct BpeModelSpec {
  std::vector<BpeMerge> merges;         // by rank; of a pair listed twice the last rank counts, as in HF
  std::array<int32_t, 256> byte_ids{};  // the token of each byte, -1 for none
  // A byte without token becomes this one; -1: it is left out, as HF does.
  int32_t unknown_id = -1;
  bool fuse_unknown = false;  // a run of unknown bytes is one token
  // The bytes of the tokens that a whole piece can be, with their ids.
  std::vector<std::pair<std::string, int32_t>> tokens;
  // A piece that is a token becomes that token even where merges lead elsewhere.
  bool ignore_merges = false;
};

class BpeModel {
 public:
  explicit BpeModel(const BpeModelSpec& spec);

  // What one thread needs to encode: cache and working memory (2 MB).
  class Scratch {
   public:
    std::vector<size_t> piece_ends;  // for the caller

   private:
    friend class BpeModel;
    void Release();
    WordCache cache_;
    // Of a piece being merged: the symbol at a place, the merge of that symbol and the next one, neighbours.
    std::vector<int32_t> symbols_, previous_, next_;
    std::vector<uint64_t> merges_;
    RankQueue queue_;
    std::vector<uint32_t> places_;
    std::vector<int32_t> result_;
  };

  // Appends the ids of the pieces [begin, ends[0]), [ends[0], ends[1]), ... of `text` (below 4 GiB). Merges
  // the pair of lowest rank first, the leftmost on a tie; O(n log n) in the length of a piece.
  void EncodePieces(std::string_view text, size_t begin, std::span<const size_t> ends, Scratch* scratch,
                    std::vector<int32_t>* ids) const;

 private:
  // The ids of one piece into scratch->result_, without cache and table of words.
  void Merge(std::string_view piece, Scratch* scratch) const;
  void InitialSymbols(std::string_view piece, std::vector<int32_t>* symbols) const;
  void MergeShort(Scratch* scratch) const;
  void MergeLong(Scratch* scratch) const;
  // The piece's only token, or -1.
  int32_t FindWord(std::string_view piece) const;
  void AddWord(std::string_view bytes, int32_t id);

  PairTable pairs_;
  std::array<int32_t, 256> byte_ids_;
  int32_t unknown_id_;
  bool fuse_unknown_;
  size_t num_ranks_;
  // Open addressing over the tokens that encode to themselves: offset and size of the bytes in word_bytes_.
  struct WordSlot {
    uint32_t tag, offset;
    uint32_t size;
    int32_t id;  // -1: empty
  };
  std::vector<WordSlot> words_;
  std::string word_bytes_;
  size_t longest_word_ = 0;
};

}  // namespace moebius
