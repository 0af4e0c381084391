// The ids of recently encoded words: bounded memory, two places a word may be, the older one is given up.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace moebius {

// Up to 24 bytes as numbers, padded with zeros, and their length.
struct WordKey {
  static constexpr size_t kMaxBytes = 24;
  uint64_t words[3];
  uint64_t length;

  // `p` has `length` <= kMaxBytes bytes; bytes up to `readable_end` may be read.
  static WordKey Load(const char* p, size_t length, const char* readable_end) {
    WordKey key{{0, 0, 0}, length};
    if (readable_end - p >= static_cast<ptrdiff_t>(kMaxBytes)) {
      std::memcpy(key.words, p, kMaxBytes);
      for (size_t i = 0; i < 3; ++i) {
        const size_t have = length > i * 8 ? length - i * 8 : 0;
        key.words[i] &= have >= 8 ? ~uint64_t{0} : (uint64_t{1} << have * 8) - 1;
      }
    } else {
      std::memcpy(key.words, p, length);
    }
    return key;
  }
  uint64_t Hash() const {
    const auto fold = [](uint64_t a, uint64_t b) {
      const auto product = static_cast<unsigned __int128>(a) * b;
      return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
    };
    return fold(words[0] ^ 0xA0761D6478BD642Fu, words[1] ^ 0xE7037ED1A0B428DBu) ^
           fold(words[2] ^ 0x8EBC6AF09C88C6E3u, length ^ 0x589965CC75374CC3u);
  }
};

class WordCache {
 public:
  struct alignas(64) Entry {
    static constexpr uint8_t kMaxIds = 9;
    uint64_t words[3];
    uint8_t length;  // of the word; 0: empty
    uint8_t num_ids;
    int32_t ids[kMaxIds];
  };

  WordCache() : entries_(kSets * 2) {}

  // nullptr if the word is not there.
  const Entry* Find(const WordKey& key, uint64_t hash) const {
    const Entry* set = &entries_[Set(hash)];
    if (Matches(set[0], key)) return &set[0];
    return Matches(set[1], key) ? &set[1] : nullptr;
  }
  // num_ids <= Entry::kMaxIds, key.length > 0.
  const Entry* Insert(const WordKey& key, uint64_t hash, const int32_t* ids, size_t num_ids) {
    Entry* set = &entries_[Set(hash)];
    set[1] = set[0];
    std::memcpy(set[0].words, key.words, sizeof(key.words));
    set[0].length = static_cast<uint8_t>(key.length);
    set[0].num_ids = static_cast<uint8_t>(num_ids);
    std::memcpy(set[0].ids, ids, num_ids * sizeof(int32_t));
    return &set[0];
  }

 private:
  static constexpr size_t kSets = 1 << 14;
  static size_t Set(uint64_t hash) { return (hash & (kSets - 1)) * 2; }
  static bool Matches(const Entry& entry, const WordKey& key) {
    return ((entry.words[0] ^ key.words[0]) | (entry.words[1] ^ key.words[1]) |
            (entry.words[2] ^ key.words[2]) | (entry.length ^ key.length)) == 0;
  }

  std::vector<Entry> entries_;
};

}  // namespace moebius
