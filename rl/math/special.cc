#include "rl/math/special.h"

#include <cctype>

#include "absl/strings/ascii.h"
#include "rl/math/clean.h"
#include "rl/math/identity.h"

namespace moebius::math {
namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

bool TakeWord(std::string_view* text, std::string_view lower_word) {
  if (text->size() < lower_word.size()) return false;
  for (size_t i = 0; i < lower_word.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>((*text)[i])) != lower_word[i]) return false;
  }
  *text = Trim(text->substr(lower_word.size()));
  return true;
}

// One or two digits.
std::optional<int> TakeNumber(std::string_view* text, size_t min_digits) {
  size_t n = 0;
  while (n < text->size() && n < 2 && absl::ascii_isdigit((*text)[n])) ++n;
  if (n < min_digits || (n < text->size() && absl::ascii_isdigit((*text)[n]))) return std::nullopt;
  int value = 0;
  for (size_t i = 0; i < n; ++i) value = 10 * value + ((*text)[i] - '0');
  text->remove_prefix(n);
  return value;
}

// True for "or (C)", "and D", ", E" and a lone "D" behind a choice.
bool NamesAnotherChoice(std::string_view content, char letter) {
  bool offered = true;  // the start, "or", "and", a comma, a slash or an opening bracket came before
  for (size_t i = 0; i < content.size();) {
    const char c = content[i];
    if (!std::isalnum(static_cast<unsigned char>(c))) {
      offered = offered || c == '(' || c == ',' || c == '/';
      ++i;
      continue;
    }
    size_t end = i;
    while (end < content.size() && std::isalnum(static_cast<unsigned char>(content[end]))) ++end;
    const std::string_view word = content.substr(i, end - i);
    const bool alone = end == content.size() ||
                       content.substr(end).find_first_not_of(" ).,") == std::string_view::npos ||
                       content[end] == ')' || content[end] == ',';
    if (offered && alone && word.size() == 1 && c >= 'A' && c <= 'J' && c != letter) return true;
    offered = word == "or" || word == "and" || word == "OR";
    i = end;
  }
  return false;
}

struct Phrase {
  std::string_view words, meaning;
};

constexpr Phrase kPhrases[] = {{"no solution", "\\emptyset"},
                               {"none", "\\emptyset"},
                               {"no solutions", "\\emptyset"},
                               {"no real solution", "\\emptyset"},
                               {"no real solutions", "\\emptyset"},
                               {"empty set", "\\emptyset"},
                               {"the empty set", "\\emptyset"},
                               {"there is no solution", "\\emptyset"},
                               {"there are no solutions", "\\emptyset"},
                               {"infinity", "\\infty"},
                               {"positive infinity", "\\infty"},
                               {"negative infinity", "-\\infty"},
                               {"minus infinity", "-\\infty"},
                               {"all real numbers", "\\mathbb{R}"},
                               {"all reals", "\\mathbb{R}"},
                               {"the real numbers", "\\mathbb{R}"},
                               {"all real x", "\\mathbb{R}"},
                               {"zero", "0"},
                               {"one", "1"},
                               {"two", "2"},
                               {"three", "3"},
                               {"four", "4"},
                               {"five", "5"},
                               {"six", "6"},
                               {"seven", "7"},
                               {"eight", "8"},
                               {"nine", "9"},
                               {"ten", "10"},
                               {"eleven", "11"},
                               {"twelve", "12"},
                               {"thirteen", "13"},
                               {"fourteen", "14"},
                               {"fifteen", "15"},
                               {"sixteen", "16"},
                               {"seventeen", "17"},
                               {"eighteen", "18"},
                               {"nineteen", "19"},
                               {"twenty", "20"},
                               {"one hundred", "100"},
                               {"a hundred", "100"},
                               {"one half", "\\frac{1}{2}"},
                               {"a half", "\\frac{1}{2}"},
                               {"one third", "\\frac{1}{3}"},
                               {"one quarter", "\\frac{1}{4}"},
                               {"does not exist", "\\text{undefined}"},
                               {"dne", "\\text{undefined}"},
                               {"not defined", "\\text{undefined}"}};

}  // namespace

std::optional<Choice> ReadChoice(std::string_view ascii) {
  const std::string plain = PlainText(ascii);
  std::string_view text = Trim(plain);
  bool said = false;
  for (std::string_view word : {"answer", "option", "choice"}) {
    if (TakeWord(&text, word)) {
      said = true;
      TakeWord(&text, "is");
      TakeWord(&text, ":");
    }
  }
  Choice out;
  const bool bracket = text.size() >= 3 && text[0] == '(';
  if (bracket) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  const char c = text[0];
  const char upper = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (upper < 'A' || upper > 'J') return std::nullopt;
  text.remove_prefix(1);
  out.letter = upper;
  // A small letter before a colon is a name: "a:b" is a ratio.
  const bool colon = !bracket && !text.empty() && text[0] == ':' && (said || c == upper);
  const bool closed = !text.empty() && (text[0] == ')' || (!bracket && text[0] == '.') || colon);
  if (bracket && !closed) return std::nullopt;
  // (A)(B) and (A)^2 are products.
  if (bracket && text.size() > 1 && std::string_view("(^*/=!_").find(text[1]) != std::string_view::npos)
    return std::nullopt;
  out.certain = said || bracket || (closed && text[0] == ')');
  out.marked = bracket || closed || said;
  // A lone small letter is a variable, and so is a letter that something follows at once.
  if (!out.marked && (c != upper || !Trim(text).empty())) return std::nullopt;
  if (closed) text.remove_prefix(1);
  if (said && !closed && !Trim(text).empty()) return std::nullopt;
  out.content = std::string(Trim(text));
  out.hedged = NamesAnotherChoice(out.content, out.letter);
  return out;
}

std::optional<Clock> ReadClock(std::string_view ascii) {
  const std::string plain = PlainWords(ascii);
  std::string_view text = Trim(plain);
  if (text == "noon") return Clock{.hours = 12, .certain = true, .has_half = true};
  if (text == "midnight") return Clock{.hours = 0, .certain = true, .has_half = true};
  Clock out;
  const std::optional<int> hours = TakeNumber(&text, 1);
  if (!hours || *hours > 24) return std::nullopt;
  out.hours = *hours;
  bool colon = false;
  if (text.starts_with(":")) {
    text.remove_prefix(1);
    const std::optional<int> minutes = TakeNumber(&text, 2);
    if (!minutes || *minutes >= 60) return std::nullopt;
    out.minutes = *minutes;
    out.certain = *minutes < 10;
    colon = true;
    if (text.starts_with(":")) {
      text.remove_prefix(1);
      const std::optional<int> seconds = TakeNumber(&text, 2);
      if (!seconds || *seconds >= 60) return std::nullopt;
      out.seconds = *seconds;
      out.certain = out.certain || *seconds < 10;
    }
  }
  text = Trim(text);
  std::string half;
  for (char c : text) {
    if (c != '.' && c != ' ') half += c;
  }
  if (half == "am" || half == "pm" || half == "noon") {
    if (out.hours < 1 || out.hours > 12) return std::nullopt;
    out.has_half = out.certain = true;
    out.hours = out.hours % 12 + (half == "am" ? 0 : 12);
    return out;
  }
  return half.empty() && colon ? std::optional<Clock>(out) : std::nullopt;
}

GradeResult CompareClocks(const Clock& a, const Clock& b) {
  const bool minutes = a.minutes == b.minutes && a.seconds == b.seconds;
  const bool hours = a.hours == b.hours;
  // "3:00" for "3:00 pm": the half of the day was left out.
  const bool twelve = a.has_half != b.has_half && a.hours % 12 == b.hours % 12;
  return minutes && (hours || twelve) ? Equal("the same time") : Different("different times");
}

std::string ReplaceKnownWords(std::string_view ascii) {
  const std::string words = PlainWords(ascii);
  for (const Phrase& phrase : kPhrases) {
    if (words == phrase.words) return std::string(phrase.meaning);
  }
  return std::string(ascii);
}

}  // namespace moebius::math
