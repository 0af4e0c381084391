#include "data/tokenizer/token_index.h"

#include <functional>

namespace moebius {

TokenIndex::TokenIndex(const std::vector<std::string>& tokens) : tokens_(tokens) {
  size_t capacity = 16;
  while (capacity < tokens.size() * 2) capacity *= 2;
  slots_.assign(capacity, Slot{0, -1});
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    const size_t hash = std::hash<std::string_view>()(tokens[id]);
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t i = hash & (slots_.size() - 1);
    for (; slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].tag == tag && tokens[slots_[i].id] == tokens[id]) duplicate_ = static_cast<int32_t>(id);
    }
    slots_[i] = {tag, static_cast<int32_t>(id)};
  }
}

int32_t TokenIndex::Find(std::string_view token) const {
  const size_t hash = std::hash<std::string_view>()(token);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t i = hash & (slots_.size() - 1); slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].tag == tag && tokens_[slots_[i].id] == token) return slots_[i].id;
  }
  return -1;
}

}  // namespace moebius
