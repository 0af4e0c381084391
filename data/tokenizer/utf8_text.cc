#include "data/tokenizer/utf8_text.h"

#include <algorithm>
#include <cstdint>

#include "data/tokenizer/unicode_classes.h"

namespace moebius {
namespace {

// Bytes that a character beginning with `lead` has, 0 for a byte that begins none.
size_t SequenceLength(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Length of the longest beginning of a character at `p` that could still become valid, 0 for none.
size_t ValidPrefix(const uint8_t* p, const uint8_t* end) {
  const size_t length = SequenceLength(p[0]);
  if (length == 0) return 0;
  size_t n = 1;
  for (; n < length && p + n < end; ++n) {
    uint8_t low = 0x80, high = 0xBF;
    if (n == 1) {
      if (p[0] == 0xE0) low = 0xA0;
      if (p[0] == 0xED) high = 0x9F;
      if (p[0] == 0xF0) low = 0x90;
      if (p[0] == 0xF4) high = 0x8F;
    }
    if (p[n] < low || p[n] > high) break;
  }
  return n;
}

}  // namespace

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  const auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
  const auto* const end = p + bytes.size();
  while (p < end) {
    const Utf8Char c = DecodeUtf8(p, end);
    if (c.valid) {
      text.append(reinterpret_cast<const char*>(p), c.length);
      p += c.length;
    } else {
      text += "\uFFFD";
      p += std::max<size_t>(1, ValidPrefix(p, end));
    }
  }
  return text;
}

bool IsUtf8(std::string_view bytes) {
  const auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
  const auto* const end = p + bytes.size();
  while (p < end) {
    const Utf8Char c = DecodeUtf8(p, end);
    if (!c.valid) return false;
    p += c.length;
  }
  return true;
}

size_t IncompleteUtf8Suffix(std::string_view bytes) {
  const auto* const begin = reinterpret_cast<const uint8_t*>(bytes.data());
  const auto* const end = begin + bytes.size();
  for (size_t n = 1; n <= std::min<size_t>(3, bytes.size()); ++n) {
    const uint8_t* const p = end - n;
    if ((*p & 0xC0) == 0x80) continue;
    return SequenceLength(*p) > n && ValidPrefix(p, end) == n ? n : 0;
  }
  return 0;
}

}  // namespace moebius
