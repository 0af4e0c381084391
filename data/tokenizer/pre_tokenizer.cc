#include "data/tokenizer/pre_tokenizer.h"

#include <utility>

#include "core/base/check.h"

namespace moebius {
namespace {

using Byte = uint8_t;

constexpr std::pair<PreTokenizerKind, std::string_view> kNames[] = {
    {PreTokenizerKind::kDeepSeekV3, "deepseek-v3"}, {PreTokenizerKind::kGpt2, "gpt2"},
    {PreTokenizerKind::kLlama3, "llama3"},          {PreTokenizerKind::kQwen2, "qwen2"},
    {PreTokenizerKind::kSmolLm, "smollm"},          {PreTokenizerKind::kNone, "none"}};

bool IsAsciiLetter(Byte b) { return static_cast<Byte>((b | 32) - 'a') < 26; }
// The 32 printable ASCII characters that are neither letter, digit nor blank.
bool IsAsciiPunctuation(Byte b) {
  return b > ' ' && b < 127 && !IsAsciiLetter(b) && static_cast<Byte>(b - '0') >= 10;
}

// Characters from a position on. A character of class `barrier` (kCjk stands for its absence in `inside_cjk`)
// ends the text as its real end does: that is how a Split inside the pieces of an earlier Split sees it.
template <CharClass kBarrier, bool kInsideCjk = false>
class Scanner {
 public:
  Scanner(const UnicodeClasses& classes, const Byte* end) : classes_(classes), end_(end) {}

  // Class bits of the character at `p`, its length in *length; class kEnd where the text ends.
  static constexpr CharClass kEnd = 1 << 15;
  CharClass At(const Byte* p, uint32_t* length) const {
    *length = 0;
    if (p >= end_) return kEnd;
    const UnicodeClasses::Char c = classes_.At(p, end_);
    if (c.char_class & kBarrier & ~kCjk) return kEnd;
    if ((kBarrier & kCjk) && ((c.char_class & kCjk) != 0) != kInsideCjk) return kEnd;
    *length = c.length;
    return c.char_class;
  }

  // Past all characters that have one of `any` and, when kNot, past those that have none.
  template <CharClass kAny, bool kNot = false>
  const Byte* Skip(const Byte* p) const {
    uint32_t length;
    for (;;) {
      const CharClass c = At(p, &length);
      if (c == kEnd || ((c & kAny) != 0) == kNot) return p;
      p += length;
    }
  }

  // `p` is at white space: where `\s*[\r\n]+|\s+(?!\S)|\s+` ends (without its first part when !newlines).
  const Byte* WhiteSpace(const Byte* p, bool newlines) const {
    const Byte* last = p;  // start of the last white space character
    const Byte* after_newline = nullptr;
    uint32_t length;
    const Byte* q = p;
    for (;;) {
      const CharClass c = At(q, &length);
      if (c == kEnd || !(c & kSpace)) {
        if (newlines && after_newline != nullptr) return after_newline;
        return c == kEnd || last == p ? q : last;
      }
      last = q;
      q += length;
      if (c & kNewline) after_newline = q;
    }
  }

 private:
  const UnicodeClasses& classes_;
  const Byte* end_;
};

// Length of "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" at `p`, else 0.
template <bool kIgnoreCase>
size_t Contraction(const Byte* p, const Byte* end) {
  if (*p != '\'' || end - p < 2) return 0;
  const Byte fold = kIgnoreCase ? 32 : 0;
  const Byte a = p[1] | fold;
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  // U+017F, the long s, is an s to a comparison that ignores case.
  if (kIgnoreCase && end - p >= 3 && p[1] == 0xC5 && p[2] == 0xBF) return 3;
  if (end - p < 3) return 0;
  const Byte b = p[2] | fold;
  return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
template <CharClass kBarrier>
const Byte* NextGpt2(const UnicodeClasses& classes, const Byte* p, const Byte* end) {
  const Scanner<kBarrier> scan(classes, end);
  if (const size_t n = Contraction<false>(p, end)) return p + n;
  uint32_t length;
  const Byte* q = p;
  CharClass c = scan.At(q, &length);
  if (*q == ' ') {
    const CharClass next = scan.At(q + 1, &length);
    if (next == scan.kEnd || (next & kSpace)) return scan.WhiteSpace(p, false);
    c = next;
    ++q;
  }
  if (c & kSpace) return scan.WhiteSpace(p, false);
  q += length;
  if (c & kLetter) return scan.template Skip<kLetter>(q);
  if (c & kNumber) return scan.template Skip<kNumber>(q);
  return scan.template Skip<kSpace | kLetter | kNumber, true>(q);
}

const Byte* NextSmolLm(const UnicodeClasses& classes, const Byte* p, const Byte* end) {
  const UnicodeClasses::Char c = classes.At(p, end);
  if (c.char_class & kDigit) return p + c.length;
  return NextGpt2<kDigit>(classes, p, end);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,kDigits}| ?[^\s\p{L}\p{N}]+[\r\n]*|
// \s*[\r\n]+|\s+(?!\S)|\s+
template <int kDigits>
const Byte* NextLlama3(const UnicodeClasses& classes, const Byte* p, const Byte* end) {
  const Scanner<0> scan(classes, end);
  if (const size_t n = Contraction<true>(p, end)) return p + n;
  uint32_t length, next_length;
  const CharClass c = scan.At(p, &length);
  const Byte* q = p + length;
  if (c & kLetter) return scan.Skip<kLetter>(q);
  if (c & kNumber) {
    for (int i = 1; i < kDigits && (scan.At(q, &length) & kNumber); ++i) q += length;
    return q;
  }
  const CharClass next = scan.At(q, &next_length);
  if (!(c & kNewline) && (next & kLetter)) return scan.Skip<kLetter>(q + next_length);
  if (c & kSpace) {
    if (*p != ' ' || next == scan.kEnd || (next & (kSpace | kNumber))) return scan.WhiteSpace(p, true);
  }
  q = scan.Skip<kSpace | kLetter | kNumber, true>(q);
  return scan.Skip<kNewline>(q);
}

// The third expression of DeepSeek-V3, inside one piece of the first two. What it does not match (controls,
// unassigned characters) gathers in a piece that ends where the next match begins.
template <bool kInsideCjk>
const Byte* NextDeepSeekPiece(const UnicodeClasses& classes, const Byte* p, const Byte* end) {
  const Scanner<kNumber | kCjk, kInsideCjk> scan(classes, end);
  using S = Scanner<kNumber | kCjk, kInsideCjk>;
  for (const Byte* q = p;;) {
    uint32_t length, next_length;
    const CharClass c = scan.At(q, &length);
    if (c == S::kEnd) return q;
    const Byte* match_end = nullptr;
    if (c & (kLetter | kMark)) {
      match_end = scan.template Skip<kLetter | kMark>(q + length);
    } else if (IsAsciiPunctuation(*q) && q + 1 < end && IsAsciiLetter(q[1])) {
      for (match_end = q + 2; match_end < end && IsAsciiLetter(*match_end);) ++match_end;
    } else {
      const CharClass next = scan.At(q + length, &next_length);
      if (!(c & (kNewline | kPunctuation | kSymbol)) && next != S::kEnd && (next & (kLetter | kMark))) {
        match_end = scan.template Skip<kLetter | kMark>(q + length + next_length);
      } else if ((c & (kPunctuation | kSymbol)) ||
                 (*q == ' ' && next != S::kEnd && (next & (kPunctuation | kSymbol)))) {
        match_end = scan.template Skip<kPunctuation | kSymbol>(q + length);
        match_end = scan.template Skip<kNewline>(match_end);
      } else if (c & kSpace) {
        match_end = scan.WhiteSpace(q, true);
      }
    }
    if (match_end != nullptr) return q == p ? match_end : q;
    q += length;
  }
}

const Byte* NextDeepSeekV3(const UnicodeClasses& classes, const Byte* p, const Byte* end) {
  const UnicodeClasses::Char c = classes.At(p, end);
  if (c.char_class & kNumber) {
    p += c.length;
    for (int i = 1; i < 3 && p < end; ++i) {
      const UnicodeClasses::Char next = classes.At(p, end);
      if (!(next.char_class & kNumber)) break;
      p += next.length;
    }
    return p;
  }
  return c.char_class & kCjk ? NextDeepSeekPiece<true>(classes, p, end)
                             : NextDeepSeekPiece<false>(classes, p, end);
}

template <auto kNext>
size_t SplitWith(const UnicodeClasses& classes, std::string_view text, size_t begin, size_t max_pieces,
                 std::vector<size_t>* ends) {
  const Byte* const base = reinterpret_cast<const Byte*>(text.data());
  const Byte* const end = base + text.size();
  const Byte* p = base + begin;
  for (size_t i = 0; i < max_pieces && p < end; ++i) {
    p = kNext(classes, p, end);
    ends->push_back(p - base);
  }
  return p - base;
}

}  // namespace

std::string_view PreTokenizerName(PreTokenizerKind kind) {
  for (const auto& [known, name] : kNames) {
    if (known == kind) return name;
  }
  return "?";
}

std::optional<PreTokenizerKind> PreTokenizerFromName(std::string_view name) {
  for (const auto& [kind, known] : kNames) {
    if (known == name) return kind;
  }
  return std::nullopt;
}

std::vector<std::string> PreTokenizerNames() {
  std::vector<std::string> names;
  for (const auto& [kind, name] : kNames) names.emplace_back(name);
  return names;
}

size_t PreTokenizer::Split(std::string_view text, size_t begin, size_t max_pieces,
                           std::vector<size_t>* ends) const {
  switch (kind_) {
    case PreTokenizerKind::kNone:
      if (begin < text.size()) ends->push_back(text.size());
      return text.size();
    case PreTokenizerKind::kGpt2:
      return SplitWith<NextGpt2<0>>(*classes_, text, begin, max_pieces, ends);
    case PreTokenizerKind::kDeepSeekV3:
      return SplitWith<NextDeepSeekV3>(*classes_, text, begin, max_pieces, ends);
    case PreTokenizerKind::kLlama3:
      return SplitWith<NextLlama3<3>>(*classes_, text, begin, max_pieces, ends);
    case PreTokenizerKind::kQwen2:
      return SplitWith<NextLlama3<1>>(*classes_, text, begin, max_pieces, ends);
    case PreTokenizerKind::kSmolLm:
      return SplitWith<NextSmolLm>(*classes_, text, begin, max_pieces, ends);
  }
  CHECK(false) << "pre-tokenizer kind " << static_cast<int>(kind_);
  return 0;
}

size_t PreTokenizer::SafeCut(std::string_view text, size_t limit) {
  CHECK_LT(limit, text.size());
  const UnicodeClasses& classes = GetUnicodeClasses();
  const Byte* const base = reinterpret_cast<const Byte*>(text.data());
  const auto letter = [base](size_t i) { return IsAsciiLetter(base[i]); };
  const auto space_at = [&](size_t i) {
    return classes.At(base + i, base + text.size()).char_class & kSpace;
  };
  const auto space_before = [&](size_t i) {
    size_t start = i - 1;
    while (start > 0 && i - start < 4 && (base[start] & 0xC0) == 0x80) --start;
    return space_at(start);
  };
  for (size_t i = limit; i > limit / 2 && i >= 2; --i) {
    // Between a word and the blank that the next word takes with it.
    if (base[i] == ' ' && i + 1 < text.size() && letter(i - 1) && letter(i + 1)) return i;
    // Behind a line end that stands alone.
    if (base[i - 1] == '\n' && !space_at(i) && !space_before(i - 1)) return i;
  }
  size_t cut = limit;
  while (cut > 1 && limit - cut < 3 && (base[cut] & 0xC0) == 0x80) --cut;
  return cut;
}

}  // namespace moebius
