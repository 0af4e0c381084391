#include "rl/math/family.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "rl/math/clean.h"
#include "rl/math/solve.h"

namespace moebius::math {
namespace {

constexpr size_t kLongestCondition = 80;
constexpr int kMostShifts = 50;  // of one family against the other

// Without spaces, brackets, points and what only sets type: "\text{ for } k \in \mathbb{Z}" is "fork\inZ".
std::string Condensed(std::string_view condition) {
  constexpr std::string_view kTypesetting[] = {"\\text", "\\mathrm", "\\mathbb", "\\qquad", "\\quad",
                                               "\\,",    "\\;",      "\\:",      "\\!"};
  std::string out;
  while (!condition.empty()) {
    const auto* set = std::ranges::find_if(
        kTypesetting, [&](std::string_view command) { return condition.starts_with(command); });
    if (set != std::end(kTypesetting)) {
      condition.remove_prefix(set->size());
      continue;
    }
    const bool is_filler = std::string_view(" ,;(){}$.").find(condition[0]) != std::string_view::npos ||
                           condition.starts_with("\\ ");
    if (!is_filler) out += condition[0];
    condition.remove_prefix(1);
  }
  return out;
}

// The letter of which `condition` says that it is any integer and nothing else; 0: none.
char IntegerLetter(std::string_view condition) {
  const std::string condensed = Condensed(condition);
  std::string_view text = condensed;
  bool named = false;  // "for any integer k"
  const auto take = [&](std::string_view word) {
    if (!text.starts_with(word)) return false;
    named = named || word.starts_with("integer");
    text.remove_prefix(word.size());
    return true;
  };
  while (take("where") || take("with") || take("for") || take("any") || take("all") || take("every") ||
         take("each") || take("integers") || take("integer")) {
  }
  if (text.empty() || !absl::ascii_islower(text[0]) || text[0] == 'e' || text[0] == 'i') return 0;
  const std::string_view rest = text.substr(1);
  const bool is_integer = rest == "\\inZ" || rest == "\\in\\Z" || rest == "isaninteger" ||
                          rest == "isanyinteger" || rest == "aninteger" || rest == "anyinteger" ||
                          (named && rest.empty());
  return is_integer ? text[0] : 0;
}

// Outside the names of commands.
bool Uses(std::string_view text, char letter) {
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\\') {
      for (++i; i < text.size() && absl::ascii_isalpha(text[i]);) ++i;
      continue;
    }
    if (text[i++] == letter) return true;
  }
  return false;
}

bool StartsCondition(std::string_view text, size_t at) {
  if (std::string_view(",;(").find(text[at]) != std::string_view::npos) return true;
  if (at > 0 && (absl::ascii_isalpha(text[at - 1]) || text[at - 1] == '\\')) return false;
  const std::string_view behind = text.substr(at);
  return behind.starts_with("where") || behind.starts_with("with") || behind.starts_with("for") ||
         behind.starts_with("\\text{") || behind.starts_with("\\quad");
}

std::string_view WithoutTail(std::string_view text) {
  for (size_t before = 0; before != text.size();) {
    before = text.size();
    for (std::string_view tail : {" ", ",", ";", "(", "\\text{", "\\quad", "\\qquad", "\\,", "\\;", "\\"})
      if (text.ends_with(tail)) text.remove_suffix(tail.size());
  }
  return text;
}

}  // namespace

std::optional<Family> ReadFamily(std::string_view ascii) {
  const size_t first = ascii.size() - std::min(ascii.size(), kLongestCondition);
  for (size_t at = ascii.size(); at-- > first;) {
    if (!StartsCondition(ascii, at)) continue;
    const char letter = IntegerLetter(ascii.substr(at));
    if (letter == 0) continue;
    Family out{.text = StripWrappers(WithoutTail(ascii.substr(0, at))), .letter = std::string(1, letter)};
    return Uses(out.text, letter) ? std::optional<Family>(std::move(out)) : std::nullopt;
  }
  return std::nullopt;
}

GradeResult CompareFamilies(Work& work, int gold, int answer, const std::string& letter) {
  Tree& tree = work.tree;
  const auto minus = [&](int x, int y) { return tree.Make(Op::kAdd, {x, tree.Make(Op::kNeg, {y})}); };
  const auto same = [&](int x, int y) { return CompareScalars(work, x, y).outcome == Outcome::kEqual; };
  const auto at = [&](int id, int n) { return Substitute(tree, id, letter, tree.Number(n)); };
  const int start_a = at(gold, 0), start_b = at(answer, 0);
  const int step_a = minus(at(gold, 1), start_a), step_b = minus(at(answer, 1), start_b);
  const auto linear = [&](int id, int step) {
    return SignOf(work, step).value_or(0) != 0 && same(minus(at(id, 2), at(id, 1)), step);
  };
  if (!linear(gold, step_a) || !linear(answer, step_b))
    return Undecided("values for all integers that are not linear in these");
  if (!same(step_a, step_b) && !same(step_a, tree.Make(Op::kNeg, {step_b})))
    return Different("values for all integers at other distances");
  // Shifted by a whole number of steps?
  const int shift = tree.Make(Op::kDiv, {minus(start_b, start_a), step_a});
  for (int n = -kMostShifts; n <= kMostShifts; ++n) {
    const std::optional<int> above = SignOf(work, minus(shift, tree.Number(n)));
    if (!above) break;
    if (*above == 0) return Equal("the same values for all integers");
    if (*above < 0 && n > -kMostShifts) return Different("other values for all integers");
  }
  return Undecided("values for all integers, far apart");
}

}  // namespace moebius::math
