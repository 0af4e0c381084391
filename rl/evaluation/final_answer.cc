#include "rl/evaluation/final_answer.h"

#include "rl/math/extract.h"
#include "rl/reward/answer_text.h"

namespace moebius {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

std::string_view FirstLine(std::string_view text) { return text.substr(0, text.find('\n')); }

// "12 apples, 3 each" and "3*4 = 12" both say 12.
std::optional<std::string> ResultIn(std::string_view line) {
  return FirstNumber(line.substr(line.rfind('=') + 1));
}

}  // namespace

std::string_view WithoutThoughts(std::string_view text) {
  constexpr std::string_view kEnd = "</think>";
  const size_t at = text.rfind(kEnd);
  if (at != kNowhere) return text.substr(at + kEnd.size());
  return Trimmed(text).starts_with("<think>") ? std::string_view() : text;
}

std::optional<std::string> FindNumberAnswer(std::string_view text) {
  text = WithoutThoughts(text);
  const math::Extracted marked = math::ExtractAnswer(text);
  if (marked.found && marked.where != "phrase") return marked.answer;
  constexpr std::string_view kMark = "####";
  if (const size_t at = text.rfind(kMark); at != kNowhere)
    if (auto number = ResultIn(FirstLine(text.substr(at + kMark.size())))) return number;
  if (marked.found)
    if (auto number = ResultIn(marked.answer)) return number;
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

}  // namespace moebius
