#include "rl/math/progression.h"

#include <algorithm>

namespace moebius::math {
namespace {

constexpr slong kMaxTerms = 300;

}  // namespace

std::optional<Progression> ReadProgression(Work& work, const std::vector<int>& elements) {
  Tree& tree = work.tree;
  const auto is_dots = [&](int id) { return tree.op(id) == Op::kEllipsis; };
  const auto dots = std::find_if(elements.begin(), elements.end(), is_dots);
  const auto before = dots - elements.begin(), after = elements.end() - dots - 1;
  if (dots == elements.end() || before < 2 || std::any_of(dots + 1, elements.end(), is_dots))
    return std::nullopt;
  const auto difference = [&](int x, int y) { return tree.Make(Op::kAdd, {y, tree.Make(Op::kNeg, {x})}); };
  Progression out{.first = elements[0], .step = difference(elements[0], elements[1]), .finite = after > 0};
  for (size_t i = 2; i < elements.size(); ++i) {
    if (is_dots(elements[i]) || is_dots(elements[i - 1])) continue;
    const GradeResult same = CompareScalars(work, out.step, difference(elements[i - 1], elements[i]));
    if (same.outcome != Outcome::kEqual) return std::nullopt;
  }
  if (after > 0) {
    out.last = elements.back();
    // 1, 2, ..., 64 may double instead: the last term must lie on the progression.
    const std::optional<Rational> count =
        ExactValue(work, tree.Make(Op::kDiv, {difference(out.first, out.last), out.step}));
    if (tree.Symbols(out.last).empty() && (!count || !count->IsInteger() || count->Sign() < 0))
      return std::nullopt;
  }
  return out;
}

std::optional<std::vector<int>> Expand(Work& work, const std::optional<Progression>& progression,
                                       const std::vector<int>& elements) {
  Tree& tree = work.tree;
  if (!progression) {
    for (int id : elements) {
      if (tree.op(id) == Op::kEllipsis) return std::nullopt;
    }
    return elements;
  }
  if (!progression->finite) return std::nullopt;
  const std::optional<Rational> first = ExactValue(work, progression->first),
                                step = ExactValue(work, progression->step),
                                last = ExactValue(work, progression->last);
  if (!first || !step || !last || step->IsZero()) return std::nullopt;
  Rational count;
  fmpq_sub(count.get(), last->get(), first->get());
  fmpq_div(count.get(), count.get(), step->get());
  const slong n = count.Small(-1);
  if (n < 0 || n > kMaxTerms) return std::nullopt;
  std::vector<int> out;
  Rational term = *first;
  for (slong k = 0; k <= n; ++k) {
    out.push_back(tree.Number(term));
    fmpq_add(term.get(), term.get(), step->get());
  }
  return out;
}

}  // namespace moebius::math
