// The classes of characters that pre-tokenizer expressions speak of (\p{L}, \p{N}, \s, ...), by table.
// The classes are those of Hugging Face `tokenizers` itself (Unicode 16 in its expressions), not of a system
// library: how text is split must not depend on the machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace moebius {

// A character has several of these bits, or none.
using CharClass = uint16_t;
inline constexpr CharClass kLetter = 1, kMark = 2, kNumber = 4, kPunctuation = 8, kSymbol = 16;
inline constexpr CharClass kSpace = 32;    // \s; CR and LF too
inline constexpr CharClass kNewline = 64;  // CR and LF
inline constexpr CharClass kCjk = 128;     // U+4E00-9FA5, U+3040-30FF
inline constexpr CharClass kDigit = 256;   // what the Digits pre-tokenizer isolates: \p{N} and newer numerals

// unicode_runs.cc, made by make_unicode_runs.py: `first code point << 9 | class`, ascending; a run ends where
// the next begins.
extern const uint32_t kUnicodeRuns[];
extern const size_t kUnicodeRunsSize;

// One character at the head of some bytes.
struct Utf8Char {
  uint32_t code_point;
  uint32_t length;  // in bytes, >= 1
  bool valid;       // false: not UTF-8; length is 1 then and code_point the byte
};

// Decodes the character at `p` (p < end). Overlong forms, surrogates and values above U+10FFFF are invalid.
inline Utf8Char DecodeUtf8(const uint8_t* p, const uint8_t* end) {
  const uint32_t b0 = p[0];
  if (b0 < 0x80) return {b0, 1, true};
  const ptrdiff_t left = end - p;
  const auto tail = [p](int i) { return (p[i] & 0xC0) == 0x80; };
  if (b0 < 0xE0) {
    if (b0 >= 0xC2 && left >= 2 && tail(1)) return {(b0 & 0x1F) << 6 | (p[1] & 0x3Fu), 2, true};
  } else if (b0 < 0xF0) {
    if (left >= 3 && tail(1) && tail(2)) {
      const uint32_t c = (b0 & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
      if (c >= 0x800 && (c < 0xD800 || c >= 0xE000)) return {c, 3, true};
    }
  } else if (b0 < 0xF5 && left >= 4 && tail(1) && tail(2) && tail(3)) {
    const uint32_t c = (b0 & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    if (c >= 0x10000 && c < 0x110000) return {c, 4, true};
  }
  return {b0, 1, false};
}

// Two-level table over all code points; 150 KB, built in well under a millisecond.
class UnicodeClasses {
 public:
  UnicodeClasses();

  struct Char {
    CharClass char_class;
    uint32_t length;
  };
  // The character at `p` (p < end). A byte that is not UTF-8 counts as one character of no class, as an
  // unassigned one does.
  Char At(const uint8_t* p, const uint8_t* end) const {
    if (*p < 0x80) return {ascii_[*p], 1};
    const Utf8Char c = DecodeUtf8(p, end);
    return {c.valid ? Of(c.code_point) : CharClass{0}, c.length};
  }
  CharClass Of(uint32_t code_point) const {
    return blocks_[block_[code_point >> 8] << 8 | (code_point & 0xFF)];
  }

 private:
  std::array<CharClass, 128> ascii_;
  std::array<uint16_t, 0x1100> block_;  // code point >> 8 -> index of its block of 256 classes
  std::vector<CharClass> blocks_;
};

// The one table of the process: constant data, built at first use.
const UnicodeClasses& GetUnicodeClasses();

}  // namespace moebius
