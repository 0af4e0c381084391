// Finds added tokens ("<|endoftext|>", "<think>") in text: leftmost first, of those the longest, as HF's
// matcher does.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moebius {

// One entry of `added_tokens` in tokenizer.json.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;     // left out by a decode that skips special tokens
  bool normalized = false;  // looked for after normalisation, in what the others left
  bool lstrip = false;      // takes the white space on its left with it
  bool rstrip = false;      // and on its right
};

// What structures a text, and stays text in what strangers wrote: special tokens and, as tokenizer.json files
// disagree on those, tokens in brackets ("<think>", "<｜User｜>", "[INST]").
bool IsMarker(const AddedToken& token);

class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(const std::vector<AddedToken>& tokens);

  struct Match {
    size_t begin, end;  // with the white space that lstrip and rstrip take
    size_t search;      // where HF looks for the next match: behind the token, before that white space
    int32_t id;         // -1: no further match
  };
  // The first match that begins at or after `search`; lstrip takes no white space from before `from`, where
  // the previous match ended.
  Match Next(std::string_view text, size_t search, size_t from) const;
  // Nothing but markers is looked for (or nothing at all).
  bool only_markers() const { return only_markers_; }

 private:
  struct Node {
    int32_t token = -1;  // index in tokens_ of the one that ends here
    int32_t child = -1, sibling = -1;
    unsigned char byte = 0;
  };
  int32_t Child(int32_t node, unsigned char byte) const;

  std::vector<AddedToken> tokens_;
  bool only_markers_;
  std::vector<Node> nodes_;         // a trie; node 0 is the root
  std::array<int32_t, 256> first_;  // the root's children by byte, -1 for none
  int only_first_byte_ = -1;        // when all tokens begin with the same byte
};

}  // namespace moebius
