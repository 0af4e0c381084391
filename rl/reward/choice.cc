#include "rl/reward/choice.h"

#include <cctype>
#include <string>

namespace moebius {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

bool IsWordByte(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80); }

// The letters of one source: none, one, or several different ones.
class LetterSet {
 public:
  void Add(char letter) {
    if (letter_ != 0 && letter_ != letter) several_ = true;
    letter_ = letter;
  }
  bool empty() const { return letter_ == 0; }
  Choice AsChoice() const {
    if (several_) return {.outcome = ChoiceOutcome::kSeveral, .letter = 0};
    if (letter_ == 0) return {};
    return {.outcome = ChoiceOutcome::kFound, .letter = letter_};
  }

 private:
  char letter_ = 0;
  bool several_ = false;
};

// Reads letters from a piece of text.
class ChoiceReader {
 public:
  explicit ChoiceReader(int count) : last_(static_cast<char>('A' + count - 1)) {}

  // Enclosing marks, a letter, and the letters joined to it by "or", "and", "," or "/". False, with nothing
  // added, when no letter stands there. `at` moves behind what was read.
  bool ReadList(std::string_view text, size_t& at, LetterSet& letters) const {
    if (!ReadLetter(text, at, letters)) return false;
    for (size_t next = at; SkipJoint(text, next) && ReadLetter(text, next, letters);) at = next;
    return true;
  }

  // A piece that is such a list and nothing else, or an option with its text on one line, "B) Paris": then
  // every other letter that stands alone in it counts too, for such a piece lists several options.
  void ReadWhole(std::string_view text, LetterSet& letters) const {
    LetterSet found;
    size_t at = 0;
    if (!ReadList(text, at, found)) return;
    const size_t behind = at;
    SkipAny(text, at, " \t\r\n*_.:)}]$\"'\\");
    const bool marked = behind < text.size() && std::string_view(".:)").find(text[behind]) != kNowhere;
    std::string_view rest = text.substr(at);
    while (!rest.empty() && std::isspace(static_cast<unsigned char>(rest.back()))) rest.remove_suffix(1);
    if (!rest.empty() && (!marked || rest.find('\n') != kNowhere)) return;
    at = 0;
    ReadList(text, at, letters);
    for (size_t i = 0; i < rest.size(); ++i) {
      const bool alone =
          (i == 0 || !IsWordByte(rest[i - 1])) && (i + 1 == rest.size() || !IsWordByte(rest[i + 1]));
      if (alone && rest[i] >= 'A' && rest[i] <= last_ && !(rest[i] == 'A' && IsArticle(rest.substr(i + 1))))
        letters.Add(rest[i]);
    }
  }

 private:
  static void SkipAny(std::string_view text, size_t& at, std::string_view marks) {
    while (at < text.size() && marks.find(text[at]) != kNowhere) ++at;
  }
  static bool SkipWord(std::string_view text, size_t& at, std::string_view word) {
    if (text.substr(at, word.size()) != word) return false;
    at += word.size();
    return true;
  }

  bool ReadLetter(std::string_view text, size_t& at, LetterSet& letters) const {
    size_t p = at;
    for (size_t before = kNowhere; before != p;) {
      before = p;
      SkipAny(text, p, " \t\r\n*_([{$:\"'");
      for (const std::string_view word :
           {"\\textbf", "\\text", "\\mathrm", "\\mathbf", "\\(", "option ", "Option "})
        SkipWord(text, p, word);
    }
    if (p >= text.size() || text[p] < 'A' || text[p] > last_) return false;
    const size_t end = p + 1;
    if (end < text.size() && (IsWordByte(text[end]) || text[end] == '\'' || text[end] == '-')) return false;
    if (text[p] == 'A' && IsArticle(text.substr(end))) return false;
    letters.Add(text[p]);
    at = end;
    return true;
  }

  // What follows an "A" makes it the article: a blank and a word in small letters that does not go on the
  // sentence.
  static bool IsArticle(std::string_view rest) {
    if (rest.size() < 2 || rest[0] != ' ' || !std::islower(static_cast<unsigned char>(rest[1]))) return false;
    size_t end = 1;
    while (end < rest.size() && IsWordByte(rest[end])) ++end;
    const std::string_view word = rest.substr(1, end - 1);
    for (const std::string_view joint : {"and", "or", "because", "since", "as", "for", "with", "but", "not"})
      if (word == joint) return false;
    return true;
  }

  static bool SkipJoint(std::string_view text, size_t& at) {
    bool joined = false;
    for (bool more = true; more;) {
      more = false;
      SkipAny(text, at, " \t\r\n*_.)}]$\"'");
      for (const std::string_view joint :
           {",", "/", "&", "and ", "or ", "else ", "maybe ", "perhaps ", "possibly "})
        more = SkipWord(text, at, joint) || more;
      joined = joined || more;
    }
    return joined;
  }

  char last_;
};

LetterSet FromAnswerTags(const ChoiceReader& reader, std::string_view text) {
  constexpr std::string_view kOpen = "<answer>", kClose = "</answer>";
  LetterSet letters;
  for (size_t at = text.find(kOpen); at != kNowhere; at = text.find(kOpen, at + 1)) {
    const size_t end = text.find(kClose, at);
    if (end == kNowhere) break;
    reader.ReadWhole(text.substr(at + kOpen.size(), end - at - kOpen.size()), letters);
  }
  return letters;
}

LetterSet FromBoxes(const ChoiceReader& reader, std::string_view text) {
  constexpr std::string_view kBox = "\\boxed{";
  LetterSet letters;
  for (size_t at = text.find(kBox); at != kNowhere; at = text.find(kBox, at + 1)) {
    const size_t from = at + kBox.size();
    size_t end = from;
    for (int depth = 1; end < text.size(); ++end) {
      depth += (text[end] == '{') - (text[end] == '}');
      if (depth == 0) break;
    }
    reader.ReadWhole(text.substr(from, end - from), letters);
  }
  return letters;
}

LetterSet FromPhrases(const ChoiceReader& reader, std::string_view text) {
  std::string small(text);
  for (char& c : small) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  LetterSet letters;
  for (const std::string_view noun : {"answer", "choice", "option"}) {
    for (const std::string_view verb : {" is", ":", "**:"}) {
      const std::string phrase = std::string(noun) + std::string(verb);
      for (size_t at = small.find(phrase); at != kNowhere; at = small.find(phrase, at + 1)) {
        size_t from = at + phrase.size();
        reader.ReadList(text, from, letters);
      }
    }
  }
  return letters;
}

}  // namespace

Choice ExtractChoice(int count, std::string_view text) {
  if (count < 2 || count > 26) return {};
  constexpr std::string_view kThought = "</think>";
  if (const size_t at = text.rfind(kThought); at != kNowhere) text.remove_prefix(at + kThought.size());
  const ChoiceReader reader(count);
  for (const auto source : {FromAnswerTags, FromBoxes, FromPhrases})
    if (const LetterSet letters = source(reader, text); !letters.empty()) return letters.AsChoice();
  LetterSet letters;
  reader.ReadWhole(text, letters);
  return letters.AsChoice();
}

Reward ChoiceReward(int count, char gold, std::string_view text) {
  if (count < 2 || count > 26 || gold < 'A' || gold >= 'A' + count) return std::nullopt;
  const Choice choice = ExtractChoice(count, text);
  return choice.outcome == ChoiceOutcome::kFound && choice.letter == gold ? 1 : 0;
}

}  // namespace moebius
