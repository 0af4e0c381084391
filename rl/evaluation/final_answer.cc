#include "rl/evaluation/final_answer.h"

#include <cctype>

#include "rl/math/extract.h"

namespace moebius {
namespace {

constexpr size_t kNowhere = std::string_view::npos;
constexpr std::string_view kBlanks = " \t\r\n";

bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == kNowhere) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::string_view FirstLine(std::string_view text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string_view WithoutThoughts(std::string_view text) {
  constexpr std::string_view kEnd = "</think>";
  const size_t at = text.rfind(kEnd);
  if (at != kNowhere) return text.substr(at + kEnd.size());
  return Trimmed(text).starts_with("<think>") ? std::string_view() : text;
}

std::optional<std::string> LastNumber(std::string_view text) {
  const size_t last = text.find_last_of("0123456789");
  if (last == kNowhere) return std::nullopt;
  size_t begin = last;
  const auto joins = [&](size_t i) {  // a comma or point between digits
    return (text[i] == ',' || text[i] == '.') && i > 0 && IsDigit(text[i - 1]);
  };
  while (begin > 0 && (IsDigit(text[begin - 1]) || joins(begin - 1))) --begin;
  // ".5", and a sign that is no hyphen between words or numbers.
  if (begin > 0 && text[begin - 1] == '.' && (begin == 1 || kBlanks.find(text[begin - 2]) != kNowhere))
    --begin;
  size_t sign = begin;
  if (sign > 0 && text[sign - 1] == '$') --sign;
  const bool minus = sign > 0 && text[sign - 1] == '-' &&
                     (sign == 1 || !std::isalnum(static_cast<unsigned char>(text[sign - 2])));
  std::string number = minus ? "-" : "";
  for (const char c : text.substr(begin, last - begin + 1))
    if (c != ',') number += c;
  return number;
}

std::optional<std::string> FindNumberAnswer(std::string_view text) {
  text = WithoutThoughts(text);
  const math::Extracted marked = math::ExtractAnswer(text);
  if (marked.found && marked.where != "phrase") return marked.answer;
  constexpr std::string_view kMark = "####";
  if (const size_t at = text.rfind(kMark); at != kNowhere)
    if (auto number = LastNumber(FirstLine(text.substr(at + kMark.size())))) return number;
  if (marked.found)
    if (auto number = LastNumber(marked.answer)) return number;
  return LastNumber(text);
}

std::optional<std::string> FindMathAnswer(std::string_view text) {
  math::Extracted found = math::ExtractAnswer(WithoutThoughts(text));
  if (!found.found || Trimmed(found.answer).empty()) return std::nullopt;
  return std::move(found.answer);
}

std::optional<std::string> FindShortAnswer(std::string_view text, AnswerLine line) {
  text = WithoutThoughts(text);
  const math::Extracted marked = math::ExtractAnswer(text);
  if (marked.found && marked.where != "phrase") return std::string(Trimmed(marked.answer));
  const std::string_view whole = Trimmed(text);
  if (whole.empty()) return std::nullopt;
  if (line == AnswerLine::kFirst) return std::string(Trimmed(FirstLine(whole)));
  const size_t end = whole.rfind('\n');
  return std::string(end == kNowhere ? whole : Trimmed(whole.substr(end + 1)));
}

std::string FindProgram(std::string_view text) {
  text = WithoutThoughts(text);
  constexpr std::string_view kFence = "```";
  std::string_view block = text;
  for (size_t open = text.find(kFence); open != kNowhere;) {
    const size_t begin = text.find('\n', open);
    if (begin == kNowhere) break;
    const size_t end = text.find(kFence, begin);
    block = text.substr(begin + 1, end == kNowhere ? kNowhere : end - begin - 1);
    open = end == kNowhere ? kNowhere : text.find(kFence, end + kFence.size());
  }
  return std::string(block);
}

}  // namespace moebius
