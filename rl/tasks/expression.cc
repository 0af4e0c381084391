#include "rl/tasks/expression.h"

#include <algorithm>
#include <vector>

#include "core/base/check.h"

namespace moebius {
namespace {

constexpr int kDeepest = 50;

__int128 Gcd(__int128 a, __int128 b) {
  if (a < 0) a = -a;
  while (b != 0) {
    const __int128 rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// Six numbers below 1000, each used at most once: whatever is formed is a sum of at most 2^5 products of
// them, below 1e20, far from overflow.
Fraction Reduced(__int128 num, __int128 den) {
  if (den < 0) {
    num = -num;
    den = -den;
  }
  const __int128 common = Gcd(num, den);
  return {num / common, den / common};
}

class ExpressionReader {
 public:
  ExpressionReader(std::string_view text, const ExpressionRules& rules)
      : text_(text), left_(rules.numbers.begin(), rules.numbers.end()), division_(rules.division) {}

  std::optional<Fraction> Whole() {
    const std::optional<Fraction> value = Sum(0);
    return Peek() == '\0' && at_ == text_.size() ? value : std::nullopt;
  }

 private:
  // The next symbol behind blanks, '\0' at the end.
  char Peek() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  std::optional<Fraction> Sum(int depth) {
    std::optional<Fraction> a = Product(depth);
    while (a && (Peek() == '+' || Peek() == '-')) {
      const int sign = text_[at_++] == '+' ? 1 : -1;
      const std::optional<Fraction> b = Product(depth);
      if (!b) return std::nullopt;
      a = Reduced(a->num * b->den + sign * b->num * a->den, a->den * b->den);
    }
    return a;
  }

  std::optional<Fraction> Product(int depth) {
    std::optional<Fraction> a = Atom(depth);
    while (a && (Peek() == '*' || (division_ && Peek() == '/'))) {
      const bool divide = text_[at_++] == '/';
      const std::optional<Fraction> b = Atom(depth);
      if (!b || (divide && b->num == 0)) return std::nullopt;
      a = divide ? Reduced(a->num * b->den, a->den * b->num) : Reduced(a->num * b->num, a->den * b->den);
    }
    return a;
  }

  std::optional<Fraction> Atom(int depth) {
    if (Peek() != '(') return Number();
    if (depth == kDeepest) return std::nullopt;
    ++at_;
    const std::optional<Fraction> inner = Sum(depth + 1);
    if (!inner || Peek() != ')') return std::nullopt;
    ++at_;
    return inner;
  }

  std::optional<Fraction> Number() {
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    const std::string_view digits = text_.substr(start, at_ - start);
    if (digits.empty() || digits.size() > 3 || digits[0] == '0') return std::nullopt;
    int64_t value = 0;
    for (const char c : digits) value = 10 * value + (c - '0');
    const auto given = std::find(left_.begin(), left_.end(), value);
    if (given == left_.end()) return std::nullopt;
    left_.erase(given);
    return Fraction{value, 1};
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<int64_t> left_;
  bool division_;
};

}  // namespace

std::optional<Fraction> EvaluateExpression(std::string_view text, const ExpressionRules& rules) {
  CHECK_LE(rules.numbers.size(), 6u);
  for (const int64_t number : rules.numbers) CHECK(1 <= number && number <= 999) << number;
  return ExpressionReader(text, rules).Whole();
}

}  // namespace moebius
