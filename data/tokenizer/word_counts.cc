#include "data/tokenizer/word_counts.h"

#include <algorithm>
#include <functional>

#include "core/base/check.h"

namespace moebius {
namespace {

constexpr size_t kBlockBytes = 1 << 20;

// What stands for a long word until its bytes are compared.
WordKey LongKey(std::string_view word) { return {{0, std::hash<std::string_view>()(word), 0}, word.size()}; }

}  // namespace

WordCounts::WordCounts() : slots_(1 << 12) {}

bool WordCounts::Matches(const Entry& entry, const WordKey& key, std::string_view word) const {
  if (entry.length != key.length || entry.words[1] != key.words[1]) return false;
  if (word.size() <= WordKey::kMaxBytes) {
    return entry.words[0] == key.words[0] && entry.words[2] == key.words[2];
  }
  return std::memcmp(reinterpret_cast<const char*>(entry.words[0]), word.data(), word.size()) == 0;
}

void WordCounts::Add(std::string_view word, const char* readable_end, uint64_t count) {
  const bool is_short = word.size() <= WordKey::kMaxBytes;
  const WordKey key = is_short ? WordKey::Load(word.data(), word.size(), readable_end) : LongKey(word);
  const uint64_t hash = key.Hash();
  const auto tag = static_cast<uint32_t>(hash >> 32);
  size_t i = hash & (slots_.size() - 1);
  for (; slots_[i].entry != 0; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].tag != tag) continue;
    Entry& entry = entries_[slots_[i].entry - 1];
    if (Matches(entry, key, word)) {
      entry.count += count;
      return;
    }
  }
  Entry entry = {{key.words[0], key.words[1], key.words[2]}, key.length, count};
  if (!is_short) entry.words[0] = reinterpret_cast<uint64_t>(Keep(word));
  entries_.push_back(entry);
  CHECK_LT(entries_.size(), size_t{1} << 32);
  slots_[i] = {tag, static_cast<uint32_t>(entries_.size())};
  if (entries_.size() * 2 > slots_.size()) Grow();
}

void WordCounts::Add(const WordCounts& other) {
  for (size_t i = 0; i < other.size(); ++i) {
    const std::string_view word = other.word(i);
    Add(word, word.data() + word.size(), other.count(i));
  }
}

std::string_view WordCounts::word(size_t i) const {
  const Entry& entry = entries_[i];
  const auto* const bytes = entry.length <= WordKey::kMaxBytes
                                ? reinterpret_cast<const char*>(entry.words)
                                : reinterpret_cast<const char*>(entry.words[0]);
  return {bytes, entry.length};
}

const char* WordCounts::Keep(std::string_view word) {
  if (word.size() > block_left_) {
    const size_t size = std::max(kBlockBytes, word.size());
    blocks_.push_back(std::make_unique<char[]>(size));
    block_next_ = blocks_.back().get();
    block_left_ = size;
  }
  std::memcpy(block_next_, word.data(), word.size());
  const char* const kept = block_next_;
  block_next_ += word.size();
  block_left_ -= word.size();
  return kept;
}

void WordCounts::Grow() {
  std::vector<Slot> slots(slots_.size() * 2);
  for (size_t e = 0; e < entries_.size(); ++e) {
    const std::string_view text = word(e);
    const WordKey key = text.size() <= WordKey::kMaxBytes
                            ? WordKey::Load(text.data(), text.size(), text.data() + text.size())
                            : LongKey(text);
    const uint64_t hash = key.Hash();
    size_t i = hash & (slots.size() - 1);
    while (slots[i].entry != 0) i = (i + 1) & (slots.size() - 1);
    slots[i] = {static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(e + 1)};
  }
  slots_ = std::move(slots);
}

}  // namespace moebius
