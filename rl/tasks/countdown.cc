// countdown: reach a target with the given numbers, each at most as often as given. Items are built backwards
// from a random expression over whole numbers above zero, so each is solvable. data: target, then the
// numbers.
#include <algorithm>

#include "core/base/strings.h"
#include "rl/tasks/expression.h"
#include "rl/tasks/task_kind.h"

namespace moebius {
namespace {

struct Term {
  int64_t value;
  std::string text;
};

class CountdownKind final : public TaskKind {
 public:
  explicit CountdownKind(const TaskOptions& options) : options_(options) {}

  std::optional<TaskCandidate> Draw(ItemDraws& draws) const override {
    std::vector<int64_t> numbers;
    std::vector<Term> terms;
    for (int i = 0; i < options_.countdown_numbers; ++i) {
      numbers.push_back(draws.Between(1, options_.countdown_highest));
      terms.push_back({numbers.back(), std::to_string(numbers.back())});
    }
    while (terms.size() > 1) {
      const Term a = Take(terms, draws), b = Take(terms, draws);
      std::optional<Term> joined = Joined(a, b, draws);
      if (!joined) return std::nullopt;
      terms.push_back(*std::move(joined));
    }
    const int64_t target = terms[0].value;
    if (target > options_.countdown_target) return std::nullopt;
    // A target among the numbers would need no arithmetic.
    if (std::find(numbers.begin(), numbers.end(), target) != numbers.end()) return std::nullopt;

    std::vector<std::string> words;
    for (const int64_t number : numbers) words.push_back(Concat(number));
    const std::string given = Join(words, " ");
    TaskCandidate out;
    out.item.gold = Bare(terms[0].text);
    out.item.prompt =
        options_.style == PromptStyle::kTerse
            ? Concat(given, " -> ", target, ": ")
            : Concat("Write an expression with the value ", target, " from the numbers ", given,
                     ". Use each number at most once, only ",
                     options_.countdown_division ? "+ - * / and parentheses" : "+ - * and parentheses",
                     ", and write only the expression.");
    out.item.data = numbers;
    out.item.data.insert(out.item.data.begin(), target);
    std::sort(numbers.begin(), numbers.end());
    for (const int64_t number : numbers) out.canonical += Concat(number, " ");
    out.canonical += Concat("= ", target);
    return out;
  }

  TaskScore Grade(const TaskItem& item, std::string_view answer) const override {
    const std::optional<Fraction> value = EvaluateExpression(
        answer, {.numbers = std::span(item.data).subspan(1), .division = options_.countdown_division});
    if (!value) return {};
    const __int128 off = value->num - item.data[0] * value->den;
    if (off == 0) return {.correct = 1, .dense = 1};
    const double distance = static_cast<double>(off < 0 ? -off : off) / static_cast<double>(value->den);
    return {.correct = 0, .dense = 0.1 + 0.4 / (1 + distance)};
  }

 private:
  static Term Take(std::vector<Term>& terms, ItemDraws& draws) {
    const int64_t at = draws.Below(terms.size());
    Term term = std::move(terms[at]);
    terms.erase(terms.begin() + at);
    return term;
  }

  // "(a op b)"; nullopt when the result is not a whole number above zero.
  std::optional<Term> Joined(const Term& a, const Term& b, ItemDraws& draws) const {
    const char op = "+-*/"[draws.Below(options_.countdown_division ? 4 : 3)];
    if (op == '-' && a.value <= b.value) return std::nullopt;
    if (op == '/' && a.value % b.value != 0) return std::nullopt;
    const int64_t value = op == '+'   ? a.value + b.value
                          : op == '-' ? a.value - b.value
                          : op == '*' ? a.value * b.value
                                      : a.value / b.value;
    return Term{value, '(' + a.text + op + b.text + ')'};
  }

  // Without the outermost parentheses, which Joined always writes.
  static std::string Bare(const std::string& text) { return text.substr(1, text.size() - 2); }

  TaskOptions options_;
};

}  // namespace

std::unique_ptr<TaskKind> MakeCountdown(const TaskOptions& options) {
  return std::make_unique<CountdownKind>(options);
}

}  // namespace moebius
