#include "data/tokenizer/bpe_model.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "core/base/check.h"

namespace moebius {
namespace {

// Pieces up to this many symbols are merged by scanning for the best pair, longer ones with a queue.
constexpr size_t kShortPiece = 48;
// The memory that a longer one took is given back at once.
constexpr size_t kLargePiece = 1 << 20;

uint64_t HashBytes(std::string_view bytes) {
  uint64_t hash = bytes.size();
  const char* const end = bytes.data() + bytes.size();
  for (const char* p = bytes.data(); p < end; p += WordKey::kMaxBytes) {
    const size_t n = std::min<size_t>(WordKey::kMaxBytes, end - p);
    hash = (hash ^ WordKey::Load(p, n, end).Hash()) * 0x9E3779B97F4A7C15u;
  }
  return hash ^ hash >> 32;
}

}  // namespace

BpeModel::BpeModel(const BpeModelSpec& spec)
    : pairs_(spec.merges.size()),
      byte_ids_(spec.byte_ids),
      unknown_id_(spec.unknown_id),
      fuse_unknown_(spec.fuse_unknown),
      num_ranks_(spec.merges.size()) {
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const BpeMerge& merge = spec.merges[rank];
    pairs_.Set(merge.left, merge.right, rank << 32 | static_cast<uint32_t>(merge.result));
  }
  size_t capacity = 16;
  while (capacity < spec.tokens.size() * 2) capacity *= 2;
  words_.assign(capacity, WordSlot{0, 0, 0, -1});
  Scratch scratch;
  for (const auto& [bytes, id] : spec.tokens) {
    if (bytes.empty()) continue;
    bool encodes_to_itself = spec.ignore_merges;
    if (!encodes_to_itself) {
      Merge(bytes, &scratch);
      encodes_to_itself = scratch.result_.size() == 1 && scratch.result_[0] == id;
    }
    if (encodes_to_itself) AddWord(bytes, id);
  }
}

void BpeModel::AddWord(std::string_view bytes, int32_t id) {
  CHECK_LT(word_bytes_.size() + bytes.size(), size_t{1} << 32);
  const uint64_t hash = HashBytes(bytes);
  size_t i = hash & (words_.size() - 1);
  while (words_[i].id >= 0) i = (i + 1) & (words_.size() - 1);
  words_[i] = {static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(word_bytes_.size()),
               static_cast<uint32_t>(bytes.size()), id};
  word_bytes_ += bytes;
  longest_word_ = std::max(longest_word_, bytes.size());
}

int32_t BpeModel::FindWord(std::string_view piece) const {
  if (piece.size() > longest_word_) return -1;
  const uint64_t hash = HashBytes(piece);
  for (size_t i = hash & (words_.size() - 1); words_[i].id >= 0; i = (i + 1) & (words_.size() - 1)) {
    const WordSlot& slot = words_[i];
    if (slot.tag == static_cast<uint32_t>(hash >> 32) && slot.size == piece.size() &&
        std::string_view(word_bytes_).substr(slot.offset, slot.size) == piece) {
      return slot.id;
    }
  }
  return -1;
}

void BpeModel::EncodePieces(std::string_view text, size_t begin, std::span<const size_t> ends,
                            Scratch* scratch, std::vector<int32_t>* ids) const {
  // Ids gather in a block on the stack: a hit copies a whole entry without asking how long it is.
  constexpr size_t kBlock = 1024;
  int32_t block[kBlock + WordCache::Entry::kMaxIds];
  size_t in_block = 0;
  const auto flush = [&] {
    ids->insert(ids->end(), block, block + in_block);
    in_block = 0;
  };
  const char* const text_end = text.data() + text.size();
  for (const size_t end : ends) {
    const std::string_view piece = text.substr(begin, end - begin);
    begin = end;
    if (piece.size() <= WordKey::kMaxBytes) {
      const WordKey key = WordKey::Load(piece.data(), piece.size(), text_end);
      const uint64_t hash = key.Hash();
      const WordCache::Entry* entry = scratch->cache_.Find(key, hash);
      if (entry == nullptr) {
        const int32_t word = FindWord(piece);
        if (word >= 0) {
          entry = scratch->cache_.Insert(key, hash, &word, 1);
        } else {
          Merge(piece, scratch);
          if (scratch->result_.size() <= WordCache::Entry::kMaxIds) {
            entry = scratch->cache_.Insert(key, hash, scratch->result_.data(), scratch->result_.size());
          }
        }
      }
      if (entry != nullptr) {
        std::memcpy(block + in_block, entry->ids, sizeof(entry->ids));
        in_block += entry->num_ids;
        if (in_block >= kBlock) flush();
        continue;
      }
    } else {
      const int32_t word = FindWord(piece);
      if (word >= 0) {
        block[in_block++] = word;
        if (in_block >= kBlock) flush();
        continue;
      }
      Merge(piece, scratch);
    }
    flush();
    ids->insert(ids->end(), scratch->result_.begin(), scratch->result_.end());
    if (piece.size() > kLargePiece) scratch->Release();
  }
  flush();
}

void BpeModel::Scratch::Release() {
  symbols_ = previous_ = next_ = result_ = {};
  merges_ = {};
  places_ = {};
  queue_.Release();
}

void BpeModel::InitialSymbols(std::string_view piece, std::vector<int32_t>* symbols) const {
  symbols->resize(piece.size());
  size_t n = 0;
  bool after_unknown = false;
  for (const unsigned char byte : piece) {
    const int32_t id = byte_ids_[byte];
    if (id >= 0) {
      (*symbols)[n++] = id;
    } else if (unknown_id_ >= 0 && !(fuse_unknown_ && after_unknown)) {
      (*symbols)[n++] = unknown_id_;
    }
    after_unknown = id < 0;
  }
  symbols->resize(n);
}

void BpeModel::Merge(std::string_view piece, Scratch* scratch) const {
  CHECK_LT(piece.size(), size_t{1} << 31);
  InitialSymbols(piece, &scratch->symbols_);
  if (scratch->symbols_.size() <= kShortPiece) {
    MergeShort(scratch);
  } else {
    MergeLong(scratch);
  }
}

void BpeModel::MergeShort(Scratch* scratch) const {
  int32_t symbols[kShortPiece];
  uint64_t merges[kShortPiece];  // of symbols i and i + 1
  size_t n = scratch->symbols_.size();
  std::copy_n(scratch->symbols_.data(), n, symbols);
  for (size_t i = 0; i + 1 < n; ++i) merges[i] = pairs_.Find(symbols[i], symbols[i + 1]);
  while (n > 1) {
    size_t best = 0;
    uint64_t best_merge = merges[0];
    for (size_t i = 1; i + 1 < n; ++i) {
      const bool better = merges[i] < best_merge;
      best = better ? i : best;
      best_merge = better ? merges[i] : best_merge;
    }
    if (best_merge == PairTable::kNone) break;
    symbols[best] = static_cast<int32_t>(best_merge);
    for (size_t i = best + 1; i + 1 < n; ++i) {
      symbols[i] = symbols[i + 1];
      merges[i] = merges[i + 1];
    }
    --n;
    if (best + 1 < n) merges[best] = pairs_.Find(symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = pairs_.Find(symbols[best - 1], symbols[best]);
  }
  scratch->result_.assign(symbols, symbols + n);
}

void BpeModel::MergeLong(Scratch* scratch) const {
  // A doubly linked list of symbols; a candidate whose place now has another merge (or none) is out of date.
  std::vector<int32_t>& symbols = scratch->symbols_;
  std::vector<int32_t>& previous = scratch->previous_;
  std::vector<int32_t>& next = scratch->next_;
  std::vector<uint64_t>& merges = scratch->merges_;
  RankQueue& queue = scratch->queue_;
  const auto n = static_cast<int32_t>(symbols.size());
  previous.resize(n);
  next.resize(n);
  merges.assign(n, PairTable::kNone);
  queue.Reserve(num_ranks_);
  for (int32_t i = 0; i < n; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1;
    if (i + 1 < n) merges[i] = pairs_.Find(symbols[i], symbols[i + 1]);
    if (merges[i] != PairTable::kNone) queue.Push(static_cast<uint32_t>(merges[i] >> 32), i);
  }
  // Candidates of a rank that is not higher than the one in hand: merges in the order of training make none.
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> early;
  uint32_t rank = 0;
  const auto update = [&](int32_t place) {
    merges[place] = next[place] < n ? pairs_.Find(symbols[place], symbols[next[place]]) : PairTable::kNone;
    if (merges[place] == PairTable::kNone) return;
    const auto new_rank = static_cast<uint32_t>(merges[place] >> 32);
    if (new_rank > rank) {
      queue.Push(new_rank, place);
    } else {
      early.push(static_cast<uint64_t>(new_rank) << 32 | static_cast<uint32_t>(place));
    }
  };
  const auto merge_at = [&](uint64_t candidate) {
    const auto place = static_cast<int32_t>(candidate & 0xFFFFFFFF);
    if (merges[place] == PairTable::kNone || merges[place] >> 32 != candidate >> 32) return;
    const int32_t gone = next[place];
    symbols[place] = static_cast<int32_t>(merges[place]);
    merges[gone] = PairTable::kNone;
    next[place] = next[gone];
    if (next[place] < n) previous[next[place]] = place;
    update(place);
    if (previous[place] >= 0) update(previous[place]);
  };
  while (queue.PopLowest(&rank, &scratch->places_)) {
    for (const uint32_t place : scratch->places_) {
      const uint64_t candidate = static_cast<uint64_t>(rank) << 32 | place;
      while (!early.empty() && early.top() < candidate) {
        const uint64_t first = early.top();
        early.pop();
        merge_at(first);
      }
      merge_at(candidate);
    }
    while (!early.empty()) {
      const uint64_t first = early.top();
      early.pop();
      merge_at(first);
    }
  }
  scratch->result_.clear();
  for (int32_t i = 0; i < n; i = next[i]) scratch->result_.push_back(symbols[i]);
}

}  // namespace moebius
