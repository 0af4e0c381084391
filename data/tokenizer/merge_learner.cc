#include "data/tokenizer/merge_learner.h"

#include <algorithm>

#include "core/base/check.h"

namespace moebius {
namespace {

uint64_t MakePair(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}
int32_t Left(uint64_t pair) { return static_cast<int32_t>(pair >> 32); }
int32_t Right(uint64_t pair) { return static_cast<int32_t>(pair); }

}  // namespace

MergeLearner::MergeLearner(const WordCounts& words, std::vector<std::string> tokens,
                           const std::vector<int32_t>& byte_ids)
    : tokens_(std::move(tokens)) {
  for (size_t id = 0; id < tokens_.size(); ++id) token_ids_.emplace(tokens_[id], static_cast<int32_t>(id));
  size_t total = 0;
  for (size_t i = 0; i < words.size(); ++i) total += words.word(i).size() > 1 ? words.word(i).size() : 0;
  CHECK_LT(total, size_t{kNone}) << "bytes of distinct words";
  symbols_.reserve(total);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string_view text = words.word(i);
    if (text.size() < 2) continue;  // nothing to merge
    const auto word = static_cast<uint32_t>(word_starts_.size());
    word_starts_.push_back(static_cast<uint32_t>(symbols_.size()));
    word_counts_.push_back(static_cast<int64_t>(words.count(i)));
    for (size_t j = 0; j < text.size(); ++j) {
      const auto place = static_cast<uint32_t>(symbols_.size());
      symbols_.push_back({byte_ids[static_cast<unsigned char>(text[j])], word, j == 0 ? kNone : place - 1,
                          j + 1 == text.size() ? kNone : place + 1});
    }
  }
}

void MergeLearner::CountInitialPairs() {
  // Dense: every symbol is a byte here. Bytes are counted in the order of their ids.
  std::vector<char> occurs(tokens_.size());
  for (const Symbol& symbol : symbols_) occurs[symbol.id] = 1;
  std::vector<int32_t> ids;
  std::vector<size_t> rank(tokens_.size());
  for (size_t id = 0; id < occurs.size(); ++id) {
    rank[id] = ids.size();
    if (occurs[id]) ids.push_back(static_cast<int32_t>(id));
  }
  const size_t n = ids.size();
  std::vector<uint32_t> occurrences(n * n);
  for (const Symbol& symbol : symbols_) {
    if (symbol.next != kNone) ++occurrences[rank[symbol.id] * n + rank[symbols_[symbol.next].id]];
  }
  std::vector<Positions> positions(n * n);
  for (size_t i = 0; i < positions.size(); ++i) positions[i].reserve(occurrences[i]);
  for (uint32_t place = 0; place < symbols_.size(); ++place) {
    const Symbol& symbol = symbols_[place];
    if (symbol.next == kNone) continue;
    const int32_t right = symbols_[symbol.next].id;
    positions[rank[symbol.id] * n + rank[right]].push_back(place);
    pairs_[MakePair(symbol.id, right)].count += word_counts_[symbol.word];
  }
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i].empty()) continue;
    Queue(MakePair(ids[i / n], ids[i % n]), std::move(positions[i]));
  }
}

void MergeLearner::Queue(Pair pair, Positions positions) {
  PairState& state = pairs_[pair];
  if (state.count <= 0) return;
  uint32_t slot;
  if (free_positions_.empty()) {
    slot = static_cast<uint32_t>(positions_.size());
    positions_.push_back(std::move(positions));
  } else {
    slot = free_positions_.back();
    free_positions_.pop_back();
    positions_[slot] = std::move(positions);
  }
  ++state.queued;
  queue_.push({state.count, pair, slot});
}

int32_t MergeLearner::TokenFor(Pair pair) {
  std::string token = tokens_[Left(pair)] + tokens_[Right(pair)];
  const auto [entry, added] = token_ids_.try_emplace(token, static_cast<int32_t>(tokens_.size()));
  if (added) tokens_.push_back(std::move(token));
  return entry->second;
}

void MergeLearner::Learn(int32_t vocab_size, int64_t min_count) {
  left_.resize(std::max<size_t>(vocab_size, tokens_.size()));
  right_.resize(left_.size());
  CountInitialPairs();
  while (static_cast<int64_t>(tokens_.size()) < vocab_size && !queue_.empty()) {
    Candidate top = queue_.top();
    queue_.pop();
    PairState& state = pairs_.find(top.pair)->second;
    if (top.count != state.count) {  // queued before other merges took some of its occurrences
      top.count = state.count;
      queue_.push(top);
      continue;
    }
    if (top.count < std::max<int64_t>(1, min_count)) break;
    Positions positions = std::move(positions_[top.positions]);
    free_positions_.push_back(top.positions);
    // HF merges a pair in the whole of the words that a candidate names. That matters only where another
    // candidate of the pair names other occurrences.
    if (state.queued > 1) positions = WholeWords(top.pair, positions);
    --state.queued;
    const int32_t result = TokenFor(top.pair);
    merges_.push_back({Left(top.pair), Right(top.pair), result});
    Apply(top.pair, result, positions);
    PublishChanges(top.pair, result);
  }
}

MergeLearner::Positions MergeLearner::WholeWords(Pair pair, const Positions& positions) const {
  Positions out;
  uint32_t last_word = kNone;
  for (const uint32_t named : positions) {
    const uint32_t word = symbols_[named].word;
    if (word == last_word) continue;
    last_word = word;
    for (uint32_t place = word_starts_[word]; place != kNone; place = symbols_[place].next) {
      const uint32_t next = symbols_[place].next;
      if (symbols_[place].id == Left(pair) && next != kNone && symbols_[next].id == Right(pair)) {
        out.push_back(place);
      }
    }
  }
  return out;
}

void MergeLearner::Apply(Pair pair, int32_t result, const Positions& positions) {
  const auto note = [](std::vector<Change>* changes, std::vector<int32_t>* changed, int32_t id, int64_t count,
                       uint32_t place) {
    Change& change = (*changes)[id];
    if (change.count == 0) changed->push_back(id);
    change.count += count;
    change.positions.push_back(place);
  };
  for (const uint32_t place : positions) {
    Symbol& symbol = symbols_[place];
    if (symbol.id != Left(pair) || symbol.next == kNone || symbols_[symbol.next].id != Right(pair)) continue;
    Symbol& gone = symbols_[symbol.next];
    const int64_t count = word_counts_[symbol.word];
    if (symbol.previous != kNone) {
      note(&left_, &changed_left_, symbols_[symbol.previous].id, count, symbol.previous);
    }
    if (gone.next != kNone) {
      note(&right_, &changed_right_, symbols_[gone.next].id, count, place);
      symbols_[gone.next].previous = place;
    }
    symbol.id = result;
    symbol.next = gone.next;
    gone.id = -1;
  }
}

void MergeLearner::PublishChanges(Pair pair, int32_t result) {
  // All counts first: a candidate is queued with the count after the whole merge.
  for (const int32_t id : changed_left_) {
    pairs_[MakePair(id, Left(pair))].count -= left_[id].count;
    pairs_[MakePair(id, result)].count += left_[id].count;
  }
  for (const int32_t id : changed_right_) {
    pairs_[MakePair(Right(pair), id)].count -= right_[id].count;
    pairs_[MakePair(result, id)].count += right_[id].count;
  }
  if (left_[result].count > 0 && right_[result].count > 0) {  // (result, result), found from both sides
    Positions& both = left_[result].positions;
    both.insert(both.end(), right_[result].positions.begin(), right_[result].positions.end());
    std::sort(both.begin(), both.end());
    both.erase(std::unique(both.begin(), both.end()), both.end());
    right_[result].positions.clear();
  }
  for (const int32_t id : changed_left_) {
    Queue(MakePair(id, result), std::move(left_[id].positions));
    left_[id] = Change();
  }
  for (const int32_t id : changed_right_) {
    if (!right_[id].positions.empty()) Queue(MakePair(result, id), std::move(right_[id].positions));
    right_[id] = Change();
  }
  changed_left_.clear();
  changed_right_.clear();
}

}  // namespace moebius
