#include "data/tokenizer/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "data/tokenizer/utf8_text.h"

namespace moebius {

namespace {
constexpr utf8proc_ssize_t kMostParts = 32;  // of one code point

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

std::string NormalizeNfc(std::string_view text) {
  if (!IsUtf8(text)) return std::string(text);
  // Hugging Face's normaliser is older than Unicode 13 and leaves the one pair apart that came then (Dives
  // Akuru), which utf8proc composes.
  constexpr std::string_view kFirst = "\U00011935", kPair = "\U00011935\U00011930";
  std::string out;
  for (size_t at = text.find(kPair); at != std::string_view::npos; at = text.find(kPair)) {
    out += Normalized(text.substr(0, at + kFirst.size()));
    text.remove_prefix(at + kFirst.size());
  }
  return out.empty() ? Normalized(text) : out + Normalized(text);
}

}  // namespace moebius
