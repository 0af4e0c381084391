#include "rl/problems/search_trace.h"

#include <cstdlib>
#include <set>
#include <utility>

#include "core/base/check.h"
#include "core/base/random.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// Draws that make no new try are given up at this many for each try asked for: then few tries are left.
constexpr int64_t kDrawsPerTry = 30;

struct Term {
  int64_t value;
  std::string text;  // in parentheses unless a given number
};

struct Try {
  std::string steps;
  std::string expression;
  int64_t value;
};

class Searcher {
 public:
  Searcher(std::span<const int64_t> numbers, int64_t target, bool division, uint64_t seed)
      : numbers_(numbers), target_(target), division_(division), stream_(seed, "search trace") {}

  Try Draw() {
    std::vector<Term> left;
    for (const int64_t number : numbers_) left.push_back({number, Concat(number)});
    Try made{.steps = "", .expression = left[0].text, .value = left[0].value};
    while (left.size() > 1) {
      Term a = Take(left), b = Take(left);
      const char op = DrawOperator(a, b);
      const int64_t value = op == '+'   ? a.value + b.value
                            : op == '-' ? a.value - b.value
                            : op == '*' ? a.value * b.value
                                        : a.value / b.value;
      made.steps += Concat(made.steps.empty() ? "" : ",", a.value, op, b.value, "=", value);
      made.expression = Concat(a.text, op, b.text);
      made.value = value;
      if (value == target_) break;
      left.push_back({value, Concat('(', made.expression, ')')});
    }
    return made;
  }

 private:
  Term Take(std::vector<Term>& terms) {
    const uint64_t at = stream_.Below(next_++, terms.size());
    Term term = std::move(terms[at]);
    terms.erase(terms.begin() + at);
    return term;
  }

  // One of those whose value is whole and above zero; orders the terms for "-" and "/".
  char DrawOperator(Term& a, Term& b) {
    std::string possible = "+*";
    if (a.value != b.value) possible += '-';
    if (division_ && (a.value % b.value == 0 || b.value % a.value == 0)) possible += '/';
    const char op = possible[stream_.Below(next_++, possible.size())];
    if ((op == '-' || op == '/') && a.value < b.value) std::swap(a, b);
    return op;
  }

  std::span<const int64_t> numbers_;
  int64_t target_;
  bool division_;
  RandomStream stream_;
  uint64_t next_ = 0;
};

// The same try whichever way round a sum or a product is written.
std::string Canonical(const std::string& steps) {
  std::string text;
  for (size_t at = 0; at < steps.size();) {
    const size_t end = std::min(steps.find(',', at), steps.size());
    const std::string step = steps.substr(at, end - at);
    const size_t op = step.find_first_of("+-*/"), equals = step.find('=');
    std::string a = step.substr(0, op), b = step.substr(op + 1, equals - op - 1);
    if (b < a) std::swap(a, b);
    text += Concat(step[op], a, " ", b, ",");
    at = end + 1;
  }
  return text;
}

}  // namespace

WorkedAnswer SearchTrace(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options,
                         uint64_t seed) {
  CHECK(!numbers.empty() && numbers.size() <= 6) << numbers.size();
  Searcher searcher(numbers, target, options.division, seed);
  std::set<std::string> seen;
  WorkedAnswer worked;
  int64_t nearest = -1;
  for (int64_t draws = 0; draws < options.tries * kDrawsPerTry; ++draws) {
    const Try made = searcher.Draw();
    if (!seen.insert(Canonical(made.steps)).second) continue;
    const int64_t distance = std::abs(made.value - target);
    worked.thoughts += Concat(made.steps, distance == 0 ? '!' : '?');
    if (nearest < 0 || distance < nearest) {
      nearest = distance;
      worked.answer = made.expression;
    }
    if (distance == 0 || static_cast<int64_t>(seen.size()) == options.tries) break;
  }
  return worked;
}

}  // namespace moebius
