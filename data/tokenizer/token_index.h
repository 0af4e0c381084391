// Ids by token string: a hash table over a vocabulary's strings, which stay where they are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moebius {

class TokenIndex {
 public:
  // `tokens` (by id, "" for none) must live as long and not change.
  explicit TokenIndex(const std::vector<std::string>& tokens);
  // -1 if there is no such token.
  int32_t Find(std::string_view token) const;
  // -1, or the higher id of two tokens that are the same.
  int32_t duplicate() const { return duplicate_; }

 private:
  struct Slot {
    uint32_t tag;
    int32_t id;  // -1: empty
  };
  const std::vector<std::string>& tokens_;
  std::vector<Slot> slots_;  // a power of two, at most half full
  int32_t duplicate_ = -1;
};

}  // namespace moebius
