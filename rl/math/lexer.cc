#include "rl/math/lexer.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "rl/math/clean.h"
#include "rl/math/lex_number.h"
#include "rl/math/lex_tables.h"

namespace moebius::math {
namespace {

bool IsAlpha(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

template <typename T>
bool Has(const T& list, std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

template <typename T>
std::string_view Replace(const T& list, std::string_view name) {
  for (const Alias& alias : list) {
    if (alias.from == name) return alias.to;
  }
  return name;
}

class Lexer {
 public:
  Lexer(std::string_view text, const LexOptions& options) : text_(text), options_(options) {}

  bool Run(std::vector<Token>* tokens, std::string* why) {
    if (!Tokens(why)) return false;
    if (failed_) return Fail("what stands under a decoration cannot be read", why);
    Push(TokenKind::kEnd, "");
    DropRedundantBrackets();
    *tokens = std::move(tokens_);
    return true;
  }

 private:
  bool Tokens(std::string* why) {
    const bool lone_dollar = std::count(text_.begin(), text_.end(), '$') == 1;
    while (at_ < text_.size()) {
      if (static_cast<int>(tokens_.size()) >= options_.max_tokens) return Fail("too many tokens", why);
      const char c = text_[at_];
      if (c == ' ' || c == '~') {
        space_ = true;
        ++at_;
      } else if (c == '\\') {
        Backslash();
      } else if (c == '$') {
        ++at_;
        // Escaped or alone before a number it is money; otherwise it opens or closes mathematics.
        if (lone_dollar && at_ < text_.size() && (absl::ascii_isdigit(text_[at_]) || text_[at_] == '.'))
          Push(TokenKind::kCommand, "$");
        space_ = true;
      } else if (absl::ascii_isdigit(c) || c == '.') {
        if (!Number()) return Fail("a number too long or a stray point", why);
      } else if (IsAlpha(c)) {
        Letters();
      } else if (!Punctuation()) {
        return Fail(std::string("character '") + c + "' has no meaning here", why);
      }
    }
    return true;
  }

  static bool Fail(std::string reason, std::string* why) {
    *why = std::move(reason);
    return false;
  }

  void Push(TokenKind kind, std::string_view text) {
    tokens_.push_back({.kind = kind, .text = std::string(text), .space_before = space_});
    space_ = false;
  }
  void PushUnit(const Unit& unit) {
    Push(TokenKind::kUnit, "");
    tokens_.back().unit = unit;
  }

  // True if a unit may follow: behind a number, a closing bracket or another unit.
  bool AfterAmount() const {
    if (tokens_.empty()) return false;
    const Token& last = tokens_.back();
    return last.kind == TokenKind::kNumber || last.kind == TokenKind::kUnit || last.IsChar(')') ||
           last.IsChar('}') || last.IsChar('/') || last.IsCommand("pi") || last.IsChar('*') ||
           last.IsCommand("cdot") || last.IsCommand("times");
  }

  bool AfterDegrees() const {
    size_t n = tokens_.size();
    if (n > 0 && tokens_[n - 1].IsChar('}')) --n;
    return n > 0 && tokens_[n - 1].IsCommand("circ");
  }

  bool AfterUnit() const {
    if (tokens_.empty()) return false;
    const bool sign =
        tokens_.back().IsChar('/') || tokens_.back().IsCommand("cdot") || tokens_.back().IsChar('*');
    const Token& last = tokens_[tokens_.size() > 1 && sign ? tokens_.size() - 2 : tokens_.size() - 1];
    return last.kind == TokenKind::kUnit;
  }
  bool AfterLetter() const {
    return !tokens_.empty() && (tokens_.back().kind == TokenKind::kLetter || tokens_.back().IsCommand("pi"));
  }

  std::string_view Group() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    if (at_ >= text_.size() || text_[at_] != '{') return {};
    size_t end = MatchBrace(text_, at_);
    const bool open = end == std::string_view::npos;
    if (open) end = text_.size();
    const std::string_view inside = text_.substr(at_ + 1, end - at_ - (open ? 1 : 2));
    at_ = end;
    return inside;
  }

  void Backslash() {
    size_t end = at_ + 1;
    while (end < text_.size() && IsAlpha(text_[end])) ++end;
    std::string_view name = text_.substr(at_ + 1, end - at_ - 1);
    if (name.empty()) {
      const char c = at_ + 1 < text_.size() ? text_[at_ + 1] : ' ';
      at_ += 2;
      if (c == '{' || c == '}' || c == '$') {
        if (c == '{') ++brackets_;
        if (c == '}') --brackets_;
        Push(TokenKind::kCommand, std::string(1, c));
      } else if (c == '\\') {
        Push(TokenKind::kCommand, "\\");
      } else if (c == '%') {
        Push(TokenKind::kChar, "%");
      } else if (c == '|') {
        Push(TokenKind::kCommand, "norm");
      } else if (c == '(' || c == ')' || c == '[' || c == ']' || c == '!' || c == '_' || c == '-' ||
                 c == '/') {
        space_ = space_ || c != '!';
      } else {
        space_ = true;
      }
      return;
    }
    at_ = end;
    name = Replace(kAliases, name);
    if (Has(kSkipped, name)) {
      if (name != "quad" && name != "qquad") {
        // "\left." and "\right." are invisible brackets.
        if ((name == "left" || name == "right") && at_ < text_.size() && text_[at_] == '.') ++at_;
      }
      space_ = true;
      return;
    }
    if (const std::string_view ch = Replace(kChars, name); ch != name) {
      if (ch == "(" || ch == "[") ++brackets_;
      if (ch == ")" || ch == "]") --brackets_;
      return Push(TokenKind::kChar, ch);
    }
    if (Has(kTextCommands, name)) {
      const std::string_view inside = Group();
      return IsNumeric(inside) ? Inside(inside) : Words(inside, name == "operatorname");
    }
    if (Has(kDecorations, name)) {
      const std::string_view inside = Group();
      if (IsMathematics(inside)) return Inside(inside);
      if (inside.size() > 1) return Words(inside, false);
      // A bold or hatted i is a unit vector, not the imaginary unit.
      const bool vector = inside == "i" || inside == "j" || inside == "k";
      if (!inside.empty() && IsAlpha(inside[0]))
        Push(TokenKind::kLetter, vector ? "vec " + std::string(inside) : std::string(inside));
      return;
    }
    if (name == "mathbb" || name == "Bbb") {
      std::string_view inside = Group();
      if (inside.empty() && at_ < text_.size() && IsAlpha(text_[at_])) inside = text_.substr(at_++, 1);
      return Push(TokenKind::kCommand, inside.size() == 1 ? "set:" + std::string(inside) : "mathbb");
    }
    if (name == "begin" || name == "end") {
      std::string_view kind = Group();
      if (kind == "smallmatrix") kind = "pmatrix";
      if (name == "begin" && kind == "array") Group();  // the columns' alignment
      return Push(TokenKind::kCommand, std::string(name) + ":" + std::string(kind));
    }
    if (name == "hspace" || name == "vspace" || name == "phantom" || name == "label" || name == "tag" ||
        name == "color") {
      Group();
      space_ = true;
      return;
    }
    if (Has(kNamedLetters, name)) return Push(TokenKind::kLetter, name);
    Push(TokenKind::kCommand, name);
  }

  // What stands in braces, read where it stands. What cannot be read ends the text.
  void Inside(std::string_view text) {
    const std::string_view outer = std::exchange(text_, text);
    const size_t at = std::exchange(at_, 0);
    const bool number = IsNumeric(text);
    if (!number) Push(TokenKind::kChar, "{");
    std::string why;
    failed_ = !Tokens(&why) || failed_;
    if (!number) Push(TokenKind::kChar, "}");
    text_ = outer;
    at_ = at;
  }

  // The content of \text{...} and of words written without it.
  void Words(std::string_view raw, bool function) {
    const std::string trimmed = StripWrappers(raw);
    if (trimmed == "\\$") return Push(TokenKind::kCommand, "$");
    const std::string lower = PlainWords(trimmed);
    if (lower.empty()) {
      space_ = true;
      return;
    }
    if (lower == "and" || lower == "or") return Push(TokenKind::kCommand, lower);
    if (SplitAtConnector(trimmed)) return;
    if (lower == "percent") return Push(TokenKind::kChar, "%");
    if (lower == "mod") return Push(TokenKind::kCommand, "mod");
    if (lower == "to" && AfterAmount()) return Push(TokenKind::kChar, ":");
    if (Scale(lower)) return;
    if (trimmed.starts_with("^\\circ")) return DegreeSign(trimmed);
    const std::string_view name = Replace(kAliases, trimmed);
    if (name == "min" && AfterAmount()) return PushUnit(*FindUnit("min"));
    if (Has(kFunctions, name)) return Push(TokenKind::kCommand, name);
    // 20^{\circ}\text{C}, 30^{\circ}\text{N}
    if (trimmed.size() == 1 && absl::ascii_isupper(trimmed[0]) && AfterDegrees())
      return Push(TokenKind::kLetter, trimmed);
    if ((AfterAmount() || AfterLetter()) && !function) {
      // Only after a bare fraction bar or product sign must it be a unit; elsewhere it may be.
      if (auto unit = ParseUnitText(trimmed + LastPower(trimmed))) return PushUnit(*unit);
      if (tokens_.back().kind == TokenKind::kNumber || tokens_.back().IsCommand("pi") ||
          tokens_.back().IsChar(')') || tokens_.back().IsChar('}')) {
        if (auto unit = NounUnit(lower)) return PushUnit(*unit);
      }
    }
    if (trimmed.size() == 1 && IsAlpha(trimmed[0])) return Push(TokenKind::kLetter, trimmed);
    Push(TokenKind::kWord, trimmed);
  }

  // \text{m/s}^2 raises the second only: the exponent is taken into the text. Empty where there is none.
  std::string LastPower(std::string_view unit) {
    if (unit.find_first_of("/ ") == std::string_view::npos) return "";
    std::string_view rest = text_.substr(at_);
    if (!rest.starts_with("^")) return "";
    const bool group = rest.starts_with("^{");
    const bool minus = rest.starts_with("^{-");
    const size_t digit = group ? 2 + minus : 1;
    if (digit >= rest.size() || !absl::ascii_isdigit(rest[digit]) ||
        (group && rest.substr(digit + 1, 1) != "}"))
      return "";
    at_ += digit + (group ? 2 : 1);
    return std::string(minus ? "^-" : "^") + rest[digit];
  }

  // "cm and" and "or maybe": the connector is a token of its own.
  bool SplitAtConnector(std::string_view words) {
    for (std::string_view connector : {"and", "or"}) {
      const std::string behind = " " + std::string(connector), before = std::string(connector) + " ";
      if (words.ends_with(behind)) {
        Words(words.substr(0, words.size() - behind.size()), false);
        Push(TokenKind::kCommand, connector);
        return true;
      }
      if (words.starts_with(before)) {
        Push(TokenKind::kCommand, connector);
        Words(words.substr(before.size()), false);
        return true;
      }
    }
    return false;
  }

  // "5 million" is a product.
  bool Scale(std::string_view lower) {
    struct Name {
      std::string_view name;
      slong value;
    };
    constexpr Name kNames[] = {{"hundred", 100},        {"thousand", 1000},          {"million", 1000000},
                               {"billion", 1000000000}, {"trillion", 1000000000000}, {"dozen", 12}};
    for (const Name& name : kNames) {
      if (lower != name.name || !AfterAmount()) continue;
      Push(TokenKind::kCommand, "cdot");
      Push(TokenKind::kNumber, lower);
      tokens_.back().value = ::moebius::math::Rational(name.value, 1);
      return true;
    }
    return false;
  }

  // \text{°C}
  void DegreeSign(std::string_view text) {
    constexpr std::string_view kSign = "^\\circ";
    Push(TokenKind::kChar, "^");
    Push(TokenKind::kCommand, "circ");
    text.remove_prefix(kSign.size());
    while (text.starts_with(" ")) text.remove_prefix(1);
    if (text == "C" || text == "F") return Push(TokenKind::kLetter, text);
    if (!text.empty()) Words(text, false);
  }

  bool Number() {
    Token token;
    token.space_before = space_;
    size_t used = LexBasedNumber(text_.substr(at_), &token);
    if (used == 0) used = LexNumber(text_.substr(at_), options_.comma_thousands && brackets_ <= 0, &token);
    if (used == 0) {
      if (text_.substr(at_).starts_with("...")) {
        at_ += 3;
        Push(TokenKind::kCommand, "ldots");
        return true;
      }
      return false;
    }
    at_ += used;
    space_ = false;
    tokens_.push_back(std::move(token));
    return true;
  }

  bool IsTimesX() const {
    if (tokens_.empty() || tokens_.back().kind != TokenKind::kNumber) return false;
    std::string_view rest = text_.substr(at_ + 1);
    while (rest.starts_with(" ")) rest.remove_prefix(1);
    if (!rest.starts_with("10")) return false;
    rest.remove_prefix(2);
    while (rest.starts_with(" ")) rest.remove_prefix(1);
    return rest.starts_with("^") || rest.starts_with("**");
  }

  void Letters() {
    Token based;
    based.space_before = space_;
    if (const size_t used = LexBasedNumber(text_.substr(at_), &based)) {
      at_ += used;
      tokens_.push_back(std::move(based));
      space_ = false;
      return;
    }
    if ((text_[at_] == 'x' || text_[at_] == 'X') && IsTimesX()) {
      ++at_;
      return Push(TokenKind::kCommand, "times");
    }
    size_t end = at_;
    while (end < text_.size() && IsAlpha(text_[end])) ++end;
    std::string_view run = text_.substr(at_, end - at_);
    at_ = end;
    LetterRun(run);
  }

  void LetterRun(std::string_view run) {
    if (run.size() == 1) {
      // A letter behind a unit is one, too: "kg m/s^2".
      const std::optional<Unit> unit = AfterUnit() ? FindUnit(run) : std::nullopt;
      return unit ? PushUnit(*unit) : Push(TokenKind::kLetter, run);
    }
    std::string lower(run);
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (Scale(lower)) return;
    if (run == "USD" && !AfterAmount()) return Push(TokenKind::kCommand, "$");
    // "3 to 4", "10 min"
    if (lower == "to" && AfterAmount()) return Push(TokenKind::kChar, ":");
    if (run == "min" && AfterAmount() && !text_.substr(at_).starts_with("("))
      return PushUnit(*FindUnit("min"));
    for (std::string_view name : {run, std::string_view(lower)}) {
      if (name == "percent") return Push(TokenKind::kChar, "%");
      if (Has(kBareCommands, name)) return Push(TokenKind::kCommand, Replace(kAliases, name));
      if (Has(kFunctions, Replace(kAliases, name))) return Push(TokenKind::kCommand, Replace(kAliases, name));
      if (name.size() > 2 && Has(kNamedLetters, name)) return Push(TokenKind::kLetter, name);
    }
    if (AfterAmount()) {
      if (lower == "square" || lower == "sq" || lower == "cubic") return Words(TakePhrase(run), false);
      if (auto unit = IsProduct(run) ? std::nullopt : FindUnit(run))
        return text_.substr(at_).starts_with(" per ") ? Words(TakePhrase(run), false) : PushUnit(*unit);
      const bool variables = run.size() == 3 && run[1] == run[0] + 1 && run[2] == run[1] + 1;  // xyz, abc
      if (run.size() >= 3 && space_ && !variables) return Words(TakePhrase(run), false);
    }
    for (std::string_view function : kFunctions) {
      if (run.size() > function.size() && run.size() <= function.size() + 2 && run.starts_with(function) &&
          function.size() >= 2 && run.size() <= 6 && !Has(kShortWords, lower)) {
        Push(TokenKind::kCommand, function);
        return LetterRun(run.substr(function.size()));
      }
    }
    // BCA alone is an order, and no product.
    const bool order = run.size() == 3 && tokens_.empty() && at_ == text_.size() &&
                       std::all_of(run.begin(), run.end(), absl::ascii_isupper);
    if (order || run.size() >= 4 || Has(kShortWords, lower)) return Push(TokenKind::kWord, run);
    for (char c : run) Push(TokenKind::kLetter, std::string(1, c));
  }

  // Such a name where it is more likely a product: 2\pi hr, \frac{2mg}{k}, 2mg\sin x.
  bool IsProduct(std::string_view run) const {
    const bool goes_on = !space_ && at_ < text_.size() && (text_[at_] == '}' || text_[at_] == '\\');
    return MayBeVariables(run) && (tokens_.back().IsCommand("pi") || goes_on);
  }

  // From the run just read to the end of the words that follow it: "feet per second".
  std::string_view TakePhrase(std::string_view run) {
    const size_t begin = at_ - run.size();
    size_t end = at_;
    while (end < text_.size()) {
      size_t next = end;
      while (next < text_.size() && text_[next] == ' ') ++next;
      size_t stop = next;
      while (stop < text_.size() && IsAlpha(text_[stop])) ++stop;
      const std::string_view word = text_.substr(next, stop - next);
      if (word.size() < 2 || word == "and" || word == "or") break;
      end = stop;
    }
    at_ = end;
    return text_.substr(begin, end - begin);
  }

  bool Punctuation() {
    const std::string_view rest = text_.substr(at_);
    struct Pair {
      std::string_view text, command;
    };
    constexpr Pair kPairs[] = {{"<=", "le"}, {">=", "ge"},      {"=<", "le"}, {"!=", "ne"}, {"/=", "ne"},
                               {"==", "="},  {"=>", "implies"}, {"->", "to"}, {"**", "^"}};
    for (const Pair& pair : kPairs) {
      if (!rest.starts_with(pair.text)) continue;
      // 5!=120 is a factorial, x!=3 is not.
      if (pair.text == "!=" && !tokens_.empty() &&
          (tokens_.back().kind == TokenKind::kNumber || tokens_.back().IsChar(')')))
        continue;
      at_ += 2;
      Push(pair.command.size() == 1 ? TokenKind::kChar : TokenKind::kCommand, pair.command);
      return true;
    }
    const char c = rest[0];
    if (std::string_view("+-*/^_=<>()[]{}|,;:!'%&").find(c) == std::string_view::npos) return false;
    if (c == '(' || c == '[') ++brackets_;
    if (c == ')' || c == ']') --brackets_;
    ++at_;
    Push(TokenKind::kChar, std::string(1, c));
    return true;
  }

  // ((x)), {{x}} and ({x}) keep their outer pair only.
  void DropRedundantBrackets() {
    const size_t n = tokens_.size();
    std::vector<size_t> partner(n, n), stack;
    const auto opens = [&](size_t i) { return tokens_[i].IsChar('(') || tokens_[i].IsChar('{'); };
    for (size_t i = 0; i < n; ++i) {
      if (opens(i)) {
        stack.push_back(i);
      } else if ((tokens_[i].IsChar(')') || tokens_[i].IsChar('}')) && !stack.empty()) {
        const bool fits = tokens_[stack.back()].IsChar('(') == tokens_[i].IsChar(')');
        if (!fits) return;
        partner[stack.back()] = i;
        stack.pop_back();
      }
    }
    std::vector<char> drop(n, 0), outer(n, 0);
    for (size_t i = 0; i < n; ++i) {
      if (!opens(i) || partner[i] == n) continue;
      const char kind = tokens_[i].text[0];
      const bool nested = i > 0 && opens(i - 1) && partner[i - 1] == partner[i] + 1;
      if (nested && (outer[i - 1] == '(' || outer[i - 1] == kind)) {
        drop[i] = drop[partner[i]] = 1;
        outer[i] = outer[i - 1];
      } else {
        outer[i] = kind;
      }
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; ++i) {
      if (drop[i]) continue;
      if (kept != i) tokens_[kept] = std::move(tokens_[i]);
      ++kept;
    }
    tokens_.resize(kept);
  }

  std::string_view text_;
  LexOptions options_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  bool failed_ = false;
  int brackets_ = 0;
  bool space_ = false;
};

}  // namespace

bool IsFunctionName(std::string_view name) { return Has(kFunctions, name); }

bool Lex(std::string_view ascii, const LexOptions& options, std::vector<Token>* tokens, std::string* why) {
  return Lexer(ascii, options).Run(tokens, why);
}

}  // namespace moebius::math
