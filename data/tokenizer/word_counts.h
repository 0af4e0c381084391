// How often each distinct piece of text occurs: the table that BPE training starts from. One for each thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "data/tokenizer/word_cache.h"

namespace moebius {

class WordCounts {
 public:
  WordCounts();
  WordCounts(WordCounts&&) = default;
  WordCounts& operator=(WordCounts&&) = default;

  // `readable_end`: the end of the text that `word` lies in. `word` is not empty.
  void Add(std::string_view word, const char* readable_end, uint64_t count = 1);
  void Add(const WordCounts& other);

  size_t size() const { return entries_.size(); }
  // Word and count i, in the order of first occurrence. Valid until the next Add.
  std::string_view word(size_t i) const;
  uint64_t count(size_t i) const { return entries_[i].count; }

 private:
  // A word of up to WordKey::kMaxBytes lies in `words`; of a longer one they are its address and hash.
  struct Entry {
    uint64_t words[3];
    uint64_t length;
    uint64_t count;
  };
  struct Slot {
    uint32_t tag;
    uint32_t entry;  // index + 1; 0: empty
  };
  bool Matches(const Entry& entry, const WordKey& key, std::string_view word) const;
  const char* Keep(std::string_view word);
  void Grow();

  std::vector<Entry> entries_;
  std::vector<Slot> slots_;                      // a power of two, at most half full
  std::vector<std::unique_ptr<char[]>> blocks_;  // the bytes of long words
  size_t block_left_ = 0;
  char* block_next_ = nullptr;
};

}  // namespace moebius
