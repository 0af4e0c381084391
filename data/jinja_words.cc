#include "data/jinja_words.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace moebius {
namespace {

// Other scripts are words too.
bool IsWord(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return absl::ascii_isalnum(byte) || c == '_' || byte >= 0x80;
}

// The literal that begins at `at`, without escapes; `at` moves behind it.
std::string Literal(std::string_view tag, size_t& at) {
  std::string out;
  const char quote = tag[at++];
  for (; at < tag.size() && tag[at] != quote; ++at) {
    if (tag[at] != '\\' || at + 1 == tag.size()) {
      out += tag[at];
      continue;
    }
    const char escaped = tag[++at];
    out += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
  }
  at += at < tag.size();
  return out;
}

std::string Literals(std::string_view tag) {
  constexpr std::string_view kErrors = "raise_exception";
  std::string out;
  bool value = false;  // something but + and blanks since the last literal
  for (size_t at = 0; at < tag.size();) {
    if (tag.substr(at).starts_with(kErrors)) {
      at = tag.find_first_of("'\"", at);
      if (at == std::string_view::npos) break;
      Literal(tag, at);
      value = true;
    } else if (tag[at] == '\'' || tag[at] == '"') {
      if (value) out += kJinjaValue;
      out += Literal(tag, at);
      value = false;
    } else {
      value |= std::string_view("+~ \t\r\n-").find(tag[at]) == std::string_view::npos;
      ++at;
    }
  }
  if (value) out += kJinjaValue;
  return out;
}

// Where the tag that begins at `begin` ends: behind "}}", "%}" or "#}" outside of literals.
size_t TagEnd(std::string_view text, size_t begin) {
  const char kind = text[begin + 1];
  const char close[] = {kind == '{' ? '}' : kind, '}', 0};
  for (size_t at = begin + 2; at < text.size();) {
    if (kind != '#' && (text[at] == '\'' || text[at] == '"')) {
      Literal(text, at);
    } else if (text.substr(at).starts_with(close)) {
      return at + 2;
    } else {
      ++at;
    }
  }
  return text.size();
}

void StripRight(std::string_view& raw, std::string_view blanks) {
  raw = raw.substr(0, raw.find_last_not_of(blanks) + 1);
}

}  // namespace

JinjaParts ReadJinja(std::string_view text) {
  JinjaParts out;
  constexpr std::string_view kBlanks = " \t\r\n";
  bool strips = false, trims = false;  // what the tag before does to the text behind it
  for (size_t at = 0; at <= text.size();) {
    size_t begin = at;
    while (begin < text.size() && !(text[begin] == '{' && begin + 1 < text.size() &&
                                    std::string_view("{%#").find(text[begin + 1]) != std::string_view::npos))
      ++begin;
    std::string_view raw = text.substr(at, begin - at);
    const bool ends = begin >= text.size();
    const bool dash = !ends && begin + 2 < text.size() && text[begin + 2] == '-';
    if (strips) raw.remove_prefix(std::min(raw.find_first_not_of(kBlanks), raw.size()));
    if (trims && raw.starts_with('\n')) raw.remove_prefix(1);
    if (dash) {
      StripRight(raw, kBlanks);
    } else if (!ends && text[begin + 1] != '{') {  // blanks before a block that begins its line
      std::string_view line = raw;
      StripRight(line, " \t");
      if (line.empty() || line.ends_with('\n')) raw = line;
    }
    out.output += raw;
    out.pieces.emplace_back(raw);
    if (ends) return out;
    const size_t end = TagEnd(text, begin);
    const std::string_view tag = text.substr(begin, end - begin);
    strips = tag.size() >= 5 && tag[tag.size() - 3] == '-';
    trims = tag[1] != '{';
    if (tag[1] != '#')
      out.pieces.push_back(Literals(tag.substr(2, tag.size() - std::min<size_t>(tag.size(), 4))));
    if (tag[1] == '{') out.output += out.pieces.back();
    at = end;
  }
  return out;
}

std::string_view FirstUnknownWord(std::string_view text, const std::vector<std::string_view>& known) {
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && IsWord(text[end])) ++end;
    const std::string_view word = text.substr(at, end - at);
    if (!word.empty() && std::find(known.begin(), known.end(), word) == known.end()) return word;
    at = end + 1;
  }
  return {};
}

}  // namespace moebius
