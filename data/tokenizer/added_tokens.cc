#include "data/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "data/tokenizer/unicode_classes.h"

namespace moebius {
namespace {

bool SpaceAt(std::string_view text, size_t at, size_t* length) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const UnicodeClasses::Char c = GetUnicodeClasses().At(p + at, p + text.size());
  *length = c.length;
  return c.char_class & kSpace;
}

size_t SkipSpaceForward(std::string_view text, size_t at) {
  size_t length;
  while (at < text.size() && SpaceAt(text, at, &length)) at += length;
  return at;
}

size_t SkipSpaceBackward(std::string_view text, size_t at, size_t limit) {
  while (at > limit) {
    size_t start = at - 1, length;
    while (start > limit && at - start < 4 && (text[start] & 0xC0) == 0x80) --start;
    if (!SpaceAt(text.substr(0, at), start, &length) || start + length != at) break;
    at = start;
  }
  return at;
}

}  // namespace

bool IsMarker(const AddedToken& token) {
  const std::string_view text = token.content;
  return token.special || (text.starts_with('<') && text.ends_with('>')) ||
         (text.starts_with('[') && text.ends_with(']'));
}

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens)
    : tokens_(tokens), only_markers_(std::all_of(tokens.begin(), tokens.end(), IsMarker)), nodes_(1) {
  first_.fill(-1);
  for (size_t t = 0; t < tokens_.size(); ++t) {
    int32_t node = 0;
    for (const unsigned char byte : tokens_[t].content) {
      int32_t child = Child(node, byte);
      if (child < 0) {
        child = static_cast<int32_t>(nodes_.size());
        nodes_.push_back({-1, -1, nodes_[node].child, byte});
        nodes_[node].child = child;
        if (node == 0) first_[byte] = child;
      }
      node = child;
    }
    nodes_[node].token = static_cast<int32_t>(t);
  }
  for (int byte = 0, used = 0; byte < 256; ++byte) {
    if (first_[byte] < 0) continue;
    only_first_byte_ = ++used == 1 ? byte : -1;
  }
}

int32_t AddedTokenMatcher::Child(int32_t node, unsigned char byte) const {
  if (node == 0) return first_[byte];
  int32_t child = nodes_[node].child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

AddedTokenMatcher::Match AddedTokenMatcher::Next(std::string_view text, size_t search, size_t from) const {
  const Match none = {text.size(), text.size(), text.size(), -1};
  if (tokens_.empty()) return none;
  for (size_t begin = search; begin < text.size(); ++begin) {
    if (only_first_byte_ >= 0) {
      const void* found = std::memchr(text.data() + begin, only_first_byte_, text.size() - begin);
      if (found == nullptr) break;
      begin = static_cast<const char*>(found) - text.data();
    }
    int32_t longest = -1;
    size_t end = begin;
    int32_t node = Child(0, text[begin]);
    for (size_t i = begin + 1; node >= 0; ++i) {
      if (nodes_[node].token >= 0) {
        longest = nodes_[node].token;
        end = i;
      }
      if (i == text.size()) break;
      node = Child(node, text[i]);
    }
    if (longest < 0) continue;
    const AddedToken& token = tokens_[longest];
    return {token.lstrip ? SkipSpaceBackward(text, begin, from) : begin,
            token.rstrip ? SkipSpaceForward(text, end) : end, end, token.id};
  }
  return none;
}

}  // namespace moebius
