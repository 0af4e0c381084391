#include "rl/math/lex_number.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string>

#include "absl/strings/ascii.h"
namespace moebius::math {
namespace {

size_t DigitRun(std::string_view text) {
  size_t n = 0;
  while (n < text.size() && absl::ascii_isdigit(text[n])) ++n;
  return n;
}

// Length of a thousands separator at the start of `text`, 0 if there is none.
size_t Separator(std::string_view text, bool commas) {
  constexpr std::string_view kAlways[] = {
      "{,}", "\\,", "\\ ", "\\!,\\!", "\\;", "\\:", "{\\,}", "~", ",\\!", "\\!,", " "};
  for (std::string_view s : kAlways) {
    if (text.starts_with(s)) return s.size();
  }
  return commas && text.starts_with(",") ? 1 : 0;
}

// "{3}" or "3": the digits inside, `used` bytes taken.
std::string_view BracedDigits(std::string_view text, size_t* used) {
  const bool brace = text.starts_with("{");
  const size_t n = DigitRun(text.substr(brace ? 1 : 0));
  *used = 0;
  if (n == 0) return {};
  if (brace) {
    if (n + 1 >= text.size() || text[n + 1] != '}') return {};
    *used = n + 2;
    return text.substr(1, n);
  }
  *used = 1;
  return text.substr(0, 1);
}

// The repeating part behind the decimal point: \overline{36}, \bar{3}, \dot{1}4\dot{2}, (36).
size_t RepeatingPart(std::string_view text, std::string* repeat) {
  for (std::string_view command : {"\\overline", "\\bar"}) {
    if (!text.starts_with(command)) continue;
    std::string_view rest = text.substr(command.size());
    const size_t space = rest.starts_with(" ") ? 1 : 0;
    size_t used = 0;
    *repeat = BracedDigits(rest.substr(space), &used);
    return used == 0 ? 0 : command.size() + space + used;
  }
  constexpr std::string_view kDot = "\\dot";
  if (text.starts_with(kDot)) {
    size_t used = 0;
    *repeat = BracedDigits(text.substr(kDot.size()), &used);
    if (used == 0) return 0;
    size_t at = kDot.size() + used;
    const size_t middle = DigitRun(text.substr(at));
    if (text.substr(at + middle).starts_with(kDot)) {
      size_t last_used = 0;
      const std::string_view last = BracedDigits(text.substr(at + middle + kDot.size()), &last_used);
      if (last_used == 0) return 0;
      *repeat += std::string(text.substr(at, middle)) + std::string(last);
      at += middle + kDot.size() + last_used;
    }
    return at;
  }
  if (text.starts_with("(")) {
    const size_t n = DigitRun(text.substr(1));
    if (n == 0 || n + 1 >= text.size() || text[n + 1] != ')') return 0;
    *repeat = text.substr(1, n);
    return n + 2;
  }
  return 0;
}

// "0.333..." repeats its last digits if they stand there three times (a single digit) or twice (more).
size_t RepeatingByDots(std::string_view text, std::string* fraction, std::string* repeat) {
  size_t used = 0;
  for (std::string_view dots : {"...", "\\ldots", "\\dots", "\\cdots"}) {
    if (text.starts_with(dots)) used = dots.size();
  }
  if (used == 0) return 0;
  for (size_t period = 1; period <= 6; ++period) {
    const size_t times = period == 1 ? 3 : 2;
    if (fraction->size() < period * times) break;
    const std::string tail = fraction->substr(fraction->size() - period);
    bool same = true;
    for (size_t k = 1; k < times; ++k) {
      same = same && fraction->substr(fraction->size() - period * (k + 1), period) == tail;
    }
    if (!same) continue;
    *repeat = tail;
    return used;
  }
  return 0;
}

// 0b1011 and 0xFF, as programs write them.
size_t LexPrefixedNumber(std::string_view text, Token* token) {
  const int base = text.starts_with("0b") ? 2 : text.starts_with("0x") ? 16 : 0;
  if (base == 0) return 0;
  size_t n = 2;
  while (n < text.size() && (base == 2 ? text[n] == '0' || text[n] == '1'
                                       : std::isxdigit(static_cast<unsigned char>(text[n])) != 0))
    ++n;
  if (n < 4) return 0;
  token->kind = TokenKind::kNumber;
  token->text = text.substr(0, n);
  token->value = Rational::FromBase(text.substr(2, n - 2), base);
  return n;
}

}  // namespace

size_t LexNumber(std::string_view text, bool commas, Token* token) {
  if (const size_t used = LexPrefixedNumber(text, token)) return used;
  size_t at = DigitRun(text);
  std::string whole(text.substr(0, at)), fraction, repeat;
  if (at == 0 && !(text.size() > 1 && text[0] == '.' && absl::ascii_isdigit(text[1]))) return 0;
  if (at >= 1 && at <= 3 && (whole[0] != '0' || at > 1)) {
    size_t end = at;
    std::string grouped = whole;
    while (const size_t s = Separator(text.substr(end), commas)) {
      const size_t n = DigitRun(text.substr(end + s));
      if (n != 3) break;
      grouped += text.substr(end + s, 3);
      end += s + 3;
    }
    // 1,000.5 is a number; "12 345 67" is not.
    whole = grouped;
    at = end;
  }
  bool point = false;
  if (at < text.size() && text[at] == '.' && !text.substr(at).starts_with("..")) {
    point = true;
    ++at;
    const size_t n = DigitRun(text.substr(at));
    fraction = text.substr(at, n);
    at += n;
    if (const size_t r = RepeatingPart(text.substr(at), &repeat)) {
      at += r;
      // 0.\overline{3}\ldots: the dots add nothing.
    } else if (const size_t d = RepeatingByDots(text.substr(at), &fraction, &repeat)) {
      at += d;
    }
  }
  if (repeat.size() + fraction.size() > 5000) return 0;
  token->kind = TokenKind::kNumber;
  token->text = whole + (point ? "." + fraction : "");
  token->value = repeat.empty() ? Rational::FromDecimal(whole, fraction)
                                : Rational::FromRepeating(whole, fraction, repeat);
  const std::string all = whole + fraction;
  token->digits = point && repeat.empty()
                      ? static_cast<int>(all.size() - std::min(all.find_first_not_of('0'), all.size()))
                      : 0;
  // 1.5e3, 2E-4: the exponent's digits follow at once.
  if (repeat.empty() && at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    size_t e = at + 1;
    const bool minus = e < text.size() && text[e] == '-';
    if (e < text.size() && (text[e] == '-' || text[e] == '+')) ++e;
    const size_t n = DigitRun(text.substr(e));
    if (n >= 1 && n <= 4) {
      const int exponent = std::stoi(std::string(text.substr(e, n)));
      Rational power;
      fmpz_ui_pow_ui(fmpq_numref(power.get()), 10, exponent);
      if (minus) {
        fmpq_div(token->value.get(), token->value.get(), power.get());
      } else {
        fmpq_mul(token->value.get(), token->value.get(), power.get());
      }
      at = e + n;
    }
  }
  return at;
}

size_t LexBasedNumber(std::string_view text, Token* token) {
  size_t n = 0;
  while (n < text.size() && (absl::ascii_isdigit(text[n]) || (text[n] >= 'A' && text[n] <= 'Z'))) ++n;
  if (n == 0 || n >= text.size() || text[n] != '_') return 0;
  const std::string_view digits = text.substr(0, n);
  if (std::none_of(digits.begin(), digits.end(), absl::ascii_isdigit) && n < 2) return 0;
  std::string_view rest = text.substr(n + 1);
  size_t used = n + 1;
  int base = 0;
  const bool brace = rest.starts_with("{");
  if (brace) rest.remove_prefix(1);
  for (std::string_view wrap : {"\\text{", "\\mathrm{"}) {
    struct Name {
      const char* name;
      int base;
    };
    constexpr Name kNames[] = {{"two}}", 2},  {"three}}", 3},   {"four}}", 4},     {"five}}", 5},
                               {"six}}", 6},  {"seven}}", 7},   {"eight}}", 8},    {"nine}}", 9},
                               {"ten}}", 10}, {"twelve}}", 12}, {"sixteen}}", 16}, {"hex}}", 16},
                               {"bin}}", 2},  {"oct}}", 8}};
    if (!brace || !rest.starts_with(wrap)) continue;
    for (const Name& name : kNames) {
      if (!rest.substr(wrap.size()).starts_with(name.name)) continue;
      base = name.base;
      used += 1 + wrap.size() + std::string_view(name.name).size();
    }
  }
  if (base == 0) {
    // An index without braces is one digit for TeX, but people write 1A_16.
    const size_t d = DigitRun(rest);
    if (d == 0 || d > 2) return 0;
    base = std::stoi(std::string(rest.substr(0, d)));
    used += d + (brace ? 2 : 0);
    if (brace && (d >= rest.size() || rest[d] != '}')) return 0;
  }
  if (base < 2 || base > 36) return 0;
  for (char c : digits) {
    const int digit = absl::ascii_isdigit(c) ? c - '0' : c - 'A' + 10;
    if (digit >= base) return 0;
  }
  token->kind = TokenKind::kNumber;
  token->text = digits;
  token->value = Rational::FromBase(digits, base);
  return used;
}

bool IsNumeric(std::string_view text) {
  return text.find_first_of("0123456789") != std::string_view::npos &&
         text.find_first_not_of("0123456789+-.,/ ") == std::string_view::npos;
}

bool IsMathematics(std::string_view text) {
  bool operators = false, command = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool letter = absl::ascii_isalpha(text[i]);
    command = text[i] == '\\' || (command && letter);
    operators = operators || command || absl::ascii_isdigit(text[i]) ||
                std::string_view("+-*/^_=<>").find(text[i]) != std::string_view::npos;
    if (letter && !command && i > 0 && absl::ascii_isalpha(text[i - 1])) return false;
  }
  return operators;
}

}  // namespace moebius::math
