#include "data/tokenizer/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "data/tokenizer/utf8_text.h"

namespace moebius {

namespace {
constexpr utf8proc_ssize_t kMostParts = 32;  // of one code point

// Marks that Hugging Face's normaliser, of an older Unicode, takes for no marks: it therefore neither moves
// them nor composes across them: first and last of each range, found by its NFC of "a", U+0345 and every
// mark.
constexpr utf8proc_int32_t kLaterMarks[][2] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
    {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
    {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}};

bool IsLaterMark(utf8proc_int32_t point) {
  const auto* const after = std::upper_bound(std::begin(kLaterMarks), std::end(kLaterMarks), point,
                                             [](auto value, const auto& range) { return value < range[0]; });
  return after != std::begin(kLaterMarks) && point <= (*std::prev(after))[1];
}

std::string Normalized(std::string_view text) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  // utf8proc's own decomposition orders marks by exchanging neighbours, which takes hours where a text has
  // a million of them in a row.
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t point = 0, parts[kMostParts];
    at += static_cast<size_t>(utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                               static_cast<utf8proc_ssize_t>(text.size() - at), &point));
    int unused = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(point, parts, kMostParts, kOptions, &unused);
    if (count < 0 || count > kMostParts) return std::string(text);
    points.insert(points.end(), parts, parts + count);
  }
  const auto mark_class = [](utf8proc_int32_t point) {
    return utf8proc_get_property(point)->combining_class;
  };
  for (auto begin = points.begin(); begin != points.end();) {
    begin = std::find_if(begin, points.end(), mark_class);
    const auto end = std::find_if_not(begin, points.end(), mark_class);
    std::stable_sort(begin, end, [&](auto a, auto b) { return mark_class(a) < mark_class(b); });
    begin = end;
  }
  const auto count = static_cast<utf8proc_ssize_t>(points.size());
  points.push_back(0);  // room that the next asks for
  const utf8proc_ssize_t size = utf8proc_reencode(points.data(), count, kOptions);
  if (size < 0) return std::string(text);
  return {reinterpret_cast<const char*>(points.data()), static_cast<size_t>(size)};
}

}  // namespace

bool NeedsNormalizing(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

namespace {

// Of a text without later marks.
std::string NormalizedPairs(std::string_view text) {
  // Hugging Face's normaliser is older than Unicode 13 and leaves the one pair apart that came then (Dives
  // Akuru), which utf8proc composes.
  constexpr std::string_view kFirst = "\U00011935", kPair = "\U00011935\U00011930";
  std::string out;
  for (size_t at = text.find(kPair); at != std::string_view::npos; at = text.find(kPair)) {
    out += Normalized(text.substr(0, at + kFirst.size()));
    text.remove_prefix(at + kFirst.size());
  }
  return out + Normalized(text);
}

}  // namespace

std::string NormalizeNfc(std::string_view text) {
  if (!IsUtf8(text)) return std::string(text);
  std::string out;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t point = 0;
    const auto size =
        static_cast<size_t>(utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                             static_cast<utf8proc_ssize_t>(text.size() - at), &point));
    if (IsLaterMark(point)) {
      out += NormalizedPairs(text.substr(begin, at - begin));
      out += text.substr(at, size);
      begin = at + size;
    }
    at += size;
  }
  return out + NormalizedPairs(text.substr(begin));
}

}  // namespace moebius
