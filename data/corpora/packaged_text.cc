#include "data/corpora/packaged_text.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// The next line of `text` from *start, without its newline; false at the end.
bool NextLine(std::string_view text, size_t* start, std::string_view* line) {
  if (*start >= text.size()) return false;
  size_t end = text.find('\n', *start);
  if (end == std::string_view::npos) end = text.size();
  *line = text.substr(*start, end - *start);
  *start = end + 1;
  return true;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// dictfmt's base 64: A-Z a-z 0-9 + /, most significant digit first. False for other characters or overflow.
bool ParseBase64Number(std::string_view digits, uint64_t* value) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (digits.empty() || digits.size() > 10) return false;
  *value = 0;
  for (const char c : digits) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return false;
    *value = *value * 64 + digit;
  }
  return true;
}

std::string CleanEntry(std::string_view entry) {
  std::string out;
  size_t start = 0;
  std::string_view line;
  while (NextLine(entry, &start, &line)) {
    const std::string_view words = Trim(line);
    if (words.size() > 2 && words.front() == '[' && words.back() == ']' &&
        (words.find("Webster") != std::string_view::npos || words == "[PJC]" || words == "[WordNet 1.5]")) {
      continue;
    }
    for (const char c : line) {
      if (c != '{' && c != '}') out.push_back(c);
    }
    out.push_back('\n');
  }
  return std::string(Trim(out));
}

}  // namespace

absl::StatusOr<std::vector<Document>> DictionaryEntries(std::string_view index, std::string_view text,
                                                        std::string_view name, std::string_view origin) {
  // Several headwords may share an entry, and one headword may have several.
  std::map<uint64_t, std::pair<std::string_view, uint64_t>> entries;  // offset -> headword, length
  size_t start = 0, line_number = 0;
  std::string_view line;
  while (NextLine(index, &start, &line)) {
    ++line_number;
    const size_t tab = line.find('\t'),
                 second = tab == std::string_view::npos ? tab : line.find('\t', tab + 1);
    uint64_t offset = 0, length = 0;
    if (second == std::string_view::npos ||
        !ParseBase64Number(line.substr(tab + 1, second - tab - 1), &offset) ||
        !ParseBase64Number(line.substr(second + 1, line.find('\t', second + 1) - second - 1), &length)) {
      return DamagedError(
          Concat(origin, ".index: line ", line_number, " is not 'headword TAB offset TAB length'"));
    }
    if (offset > text.size() || length > text.size() - offset) {
      return DamagedError(Concat(origin, ".index: line ", line_number, " points outside the ", text.size(),
                                 " bytes of the dictionary"));
    }
    const std::string_view headword = line.substr(0, tab);
    if (headword.starts_with("00database") || headword.starts_with("00-database")) continue;
    entries.emplace(offset, std::pair(headword, length));
  }
  std::map<std::string, int, std::less<>> seen;
  std::vector<Document> documents;
  for (const auto& [offset, entry] : entries) {
    std::string body = CleanEntry(text.substr(offset, entry.second));
    if (body.empty()) continue;
    std::string full_name = Concat(name, "/", entry.first);
    if (const int count = ++seen[full_name]; count > 1) full_name += Concat("#", count);
    documents.push_back(
        {.name = std::move(full_name), .text = std::move(body) + '\n', .origin = std::string(origin)});
  }
  return documents;
}

std::vector<Document> FortuneItems(std::string_view text, std::string_view file, std::string_view origin) {
  std::vector<Document> documents;
  std::string item;
  int number = 0;
  const auto flush = [&] {
    ++number;
    if (!Trim(item).empty()) {
      documents.push_back(
          {.name = Concat("fortunes/", file, ":", number), .text = item, .origin = std::string(origin)});
    }
    item.clear();
  };
  size_t start = 0;
  std::string_view line;
  while (NextLine(text, &start, &line)) {
    if (line == "%") {
      flush();
    } else {
      item.append(line).push_back('\n');
    }
  }
  flush();
  return documents;
}

absl::StatusOr<std::vector<Document>> WordnetGlosses(std::string_view text, std::string_view origin) {
  std::vector<Document> documents;
  size_t start = 0, line_number = 0;
  std::string_view line;
  while (NextLine(text, &start, &line)) {
    ++line_number;
    if (line.starts_with("  ")) continue;  // the licence, at the top of each file
    // offset lex_filenum ss_type w_cnt(hex) word lex_id [word lex_id]... p_cnt ... | gloss
    const size_t bar = line.find(" | ");
    std::vector<std::string_view> fields;
    for (size_t at = 0; at < std::min(bar, line.size());) {
      size_t end = std::min(line.find(' ', at), line.size());
      fields.push_back(line.substr(at, end - at));
      at = end + 1;
    }
    size_t words = 0;  // two hexadecimal digits
    if (fields.size() > 4 && fields[3].size() == 2) {
      std::from_chars(fields[3].data(), fields[3].data() + fields[3].size(), words, 16);
    }
    if (bar == std::string_view::npos || words == 0 || fields.size() < 4 + 2 * words) {
      return DamagedError(Concat(origin, ": line ", line_number, " is not a synset of wndb(5)"));
    }
    std::string body;
    for (size_t i = 0; i < words; ++i) {
      std::string word(fields[4 + 2 * i].substr(0, fields[4 + 2 * i].find('(')));
      std::replace(word.begin(), word.end(), '_', ' ');
      body += (i == 0 ? "" : ", ") + word;
    }
    body.append(": ").append(Trim(line.substr(bar + 3))).push_back('\n');
    documents.push_back({.name = Concat("wordnet/", fields[2], fields[0]),
                         .text = std::move(body),
                         .origin = Concat(origin, ":", line_number)});
  }
  return documents;
}

}  // namespace moebius
