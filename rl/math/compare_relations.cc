#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <string_view>

#include "rl/math/compare.h"
#include "rl/math/region.h"
#include "rl/math/solve.h"

namespace moebius::math {
namespace {

bool OnlySymbols(const Tree& tree, const std::vector<int>& args) {
  return std::all_of(args.begin(), args.end(), [&](int arg) { return tree.op(arg) == Op::kSymbol; });
}

bool HasSymbols(const Tree& tree, int id) { return !tree.Symbols(id).empty(); }

// dy/dx.
bool IsDerivative(const Tree& tree, int id) {
  if (tree.op(id) != Op::kDiv) return false;
  return std::ranges::all_of(tree.args(id), [&](int part) {
    const std::vector<int>& factors = tree.args(part);
    return tree.op(part) == Op::kMul && factors.size() == 2 && OnlySymbols(tree, factors) &&
           tree[factors[0]].text == "d";
  });
}

bool IsTrigonometric(const Node& node) {
  constexpr std::string_view kNames[] = {"sin", "cos", "tan", "cot", "sec", "csc"};
  return node.op == Op::kFunction && std::ranges::find(kNames, node.text) != std::end(kNames);
}

}  // namespace

std::optional<bool> Comparer::Rounds(int exact, int rounded) {
  if (tree_.op(exact) == Op::kQuantity && tree_.op(rounded) == Op::kQuantity &&
      tree_[exact].unit.Key() == tree_[rounded].unit.Key())
    return Rounds(tree_.args(exact)[0], tree_.args(rounded)[0]);
  const std::optional<Rational> value = ExactValue(work_, rounded);
  if (!value) return std::nullopt;
  const Node& written = tree_[tree_.op(rounded) == Op::kNeg ? tree_.args(rounded)[0] : rounded];
  int unit = tree_.Number(1);  // of the last digit
  if (written.op == Op::kNumber && written.digits > 0 && !value->IsZero()) {
    const double magnitude = std::floor(std::log10(std::abs(fmpq_get_d(value->get()))));
    const auto power = static_cast<slong>(magnitude) - written.digits + 1;
    unit = tree_.Make(Op::kPow, {tree_.Number(10), tree_.Number(power)});
  } else if (!value->IsInteger()) {  // 22/7
    unit = tree_.Make(Op::kAbs, {tree_.Make(Op::kDiv, {rounded, tree_.Number(200)})});
  }
  // Cut, it is below the exact one by less than a unit; rounded, half a unit away at most.
  const auto minus = [this](int x, int y) { return tree_.Make(Op::kAdd, {x, tree_.Make(Op::kNeg, {y})}); };
  const int above = value->Sign() < 0 ? minus(rounded, exact) : minus(exact, rounded);
  const int half = tree_.Make(Op::kDiv, {unit, tree_.Number(2)});
  const std::optional<int> high = SignOf(work_, minus(above, unit)),
                           low = SignOf(work_, tree_.Make(Op::kAdd, {above, half}));
  return high && low ? std::optional<bool>(*high < 0 && *low >= 0) : std::nullopt;
}

Comparer::Reading Comparer::Read(int id) {
  Reading out;
  const Node node = tree_[id];
  out.value = id;
  if (node.op != Op::kRelation) return out;
  out.relation = true;
  const std::vector<int>& sides = node.args;
  const auto lone = [&](int side) {
    const Node& n = tree_[side];
    return n.op == Op::kSymbol || n.op == Op::kCall || n.op == Op::kText || IsDerivative(tree_, side) ||
           (((n.op == Op::kSequence && n.text == "()") || n.op == Op::kMatrix) && OnlySymbols(tree_, n.args));
  };
  const auto set_name = [&](int side, int value) {
    const Node& n = tree_[side];
    out.named = true;
    out.value = value;
    out.call = n.op == Op::kCall ? side : -1;
    out.name = n.op == Op::kSymbol || n.op == Op::kCall ? n.text : tree_.Canonical(side);
    if (n.op == Op::kText) out.name = "";  // a label: "Area = 5"
    out.defines = n.op == Op::kCall || out.name == "y";
  };
  // a = exact ~ rounded: the exact one is the value.
  const size_t approx = node.text.find(kApprox);
  const size_t last = approx == std::string::npos ? sides.size() - 1 : approx;
  if (approx != std::string::npos && approx + 1 < sides.size()) out.rounded = sides[approx + 1];
  const bool name_first = lone(sides[0]);
  const auto constant = [&](size_t from) {
    return std::none_of(sides.begin() + static_cast<std::ptrdiff_t>(from), sides.end(),
                        [&](int side) { return HasSymbols(tree_, side); });
  };
  // Behind the name, or all of them: 5 = 6, and 3 that is about 7.
  const size_t first = name_first ? 1 : 0;
  if (constant(first)) {
    for (size_t i = first; i < last; ++i) {
      if (CompareScalars(work_, sides[i], sides[i + 1]).outcome == Outcome::kDifferent) out.untrue = true;
    }
    if (out.rounded >= 0 && last >= first && Rounds(sides[last], out.rounded) == false) out.untrue = true;
  }
  if (name_first) {
    set_name(sides[0], last == 0 ? sides[1] : sides[last]);
    return out;
  }
  if (sides.size() == 2 && approx == std::string::npos && lone(sides[1])) {
    set_name(sides[1], sides[0]);
    return out;
  }
  if (constant(0) || sides.size() > 2 || approx != std::string::npos) {
    out.named = true;
    out.name = "";
    out.value = sides[last];
    return out;
  }
  out.equation = true;
  return out;
}

bool Comparer::Solves(const Reading& solved, int equation) {
  if (!solved.named || solved.call >= 0 || solved.name.empty() || tree_.op(solved.value) == Op::kSequence)
    return false;
  const std::vector<std::string> symbols = tree_.Symbols(equation);
  if (std::find(symbols.begin(), symbols.end(), solved.name) == symbols.end()) return false;
  const auto at = [&](int value) { return Substitute(tree_, equation, solved.name, value); };
  // Linear in the variable: f(2) - 2 f(1) + f(0) = 0, and not constant.
  const int f0 = at(tree_.Number(0)), f1 = at(tree_.Number(1)), f2 = at(tree_.Number(2));
  const int left = tree_.Make(Op::kAdd, {f2, f0}), right = tree_.Make(Op::kMul, {tree_.Number(2), f1});
  if (CompareScalars(work_, left, right).outcome != Outcome::kEqual ||
      CompareScalars(work_, f0, f1).outcome != Outcome::kDifferent)
    return false;
  return CompareScalars(work_, at(solved.value), tree_.Number(0)).outcome == Outcome::kEqual;
}

GradeResult Comparer::CompareRelations(int gold, int answer) {
  const Reading a = Read(gold), b = Read(answer);
  if (b.untrue) return Different("an equation that is not true");
  if (a.untrue) return Undecided("the gold answer is an equation that is not true");
  const auto difference = [&](int id) {
    return tree_.Make(Op::kAdd, {tree_.args(id)[0], tree_.Make(Op::kNeg, {tree_.args(id)[1]})});
  };
  const auto two_sided = [&](int id) {
    return tree_.op(id) == Op::kRelation && tree_.args(id).size() == 2 && tree_[id].text == "=";
  };
  const auto scalar = [&](int id) {
    return !tree_.Contains(id, {Op::kSequence, Op::kMatrix, Op::kText, Op::kCall, Op::kRatio, Op::kSetName,
                                Op::kCongruent, Op::kEllipsis});
  };
  if (a.relation && b.relation) {
    // "x = 5" asks for a solved answer, "y = 2x + 1" for a line in any form.
    const bool curves =
        (a.equation || HasSymbols(tree_, a.value)) && (b.equation || HasSymbols(tree_, b.value));
    if (curves && two_sided(gold) && two_sided(answer) && scalar(gold) && scalar(answer)) {
      const std::optional<bool> same = Proportional(work_, difference(gold), difference(answer), false);
      if (same && *same) return Equal("the same equation up to a factor");
      if (Solves(a, difference(answer)) || Solves(b, difference(gold)))
        return Equal("the same equation, solved for one variable");
      if (!same && (a.equation || b.equation)) return Undecided("equations that could not be compared");
      if (a.equation || b.equation) return Different("different equations");
    } else if (a.equation || b.equation) {
      return Different("a solved against an unsolved equation");
    }
    int value_b = b.value;
    if (a.call >= 0 && b.call >= 0) {
      // f(t) = t^2 is f(x) = x^2.
      const std::vector<int> pa = tree_.args(a.call), pb = tree_.args(b.call);
      if (pa.size() != pb.size()) return Different("functions of a different number of arguments");
      for (size_t i = 0; i < pa.size(); ++i) {
        if (tree_.op(pa[i]) != Op::kSymbol || tree_.op(pb[i]) != Op::kSymbol) {
          const GradeResult same = Compare(pa[i], pb[i]);
          if (same.outcome != Outcome::kEqual) return same;
        } else if (tree_[pa[i]].text != tree_[pb[i]].text) {
          value_b = Substitute(tree_, value_b, tree_[pb[i]].text, pa[i]);
        }
      }
    }
    const bool alike = a.name == b.name || a.name.empty() || b.name.empty() ||
                       (a.defines && b.defines && (a.call < 0 || b.call < 0) && HasSymbols(tree_, a.value));
    if (!alike) return Different("values of different variables");
    return Compare(a.value, value_b);
  }
  const Reading& relation = a.relation ? a : b;
  const int other = a.relation ? answer : gold;
  const auto compare = [&](int value) { return a.relation ? Compare(value, other) : Compare(other, value); };
  if (relation.named) {
    GradeResult result = compare(relation.value);
    if (result.outcome == Outcome::kDifferent && relation.rounded >= 0) {
      GradeResult rounded = compare(relation.rounded);
      if (rounded.outcome == Outcome::kEqual) return rounded;
    }
    return result;
  }
  // "x + y = 5" states the value of an expression of several unknowns, "\cos x = 1/2" that of the cosine;
  // "3x = 15" is not solved yet.
  const int id = a.relation ? gold : answer;
  const std::vector<int> sides = tree_.args(id);
  if (!HasSymbols(tree_, sides[1]) && tree_.op(other) != Op::kSequence) {
    if (IsTrigonometric(tree_[sides[0]])) return compare(sides[1]);
    const std::optional<int> sign = SignOf(work_, sides[1]);
    if (tree_.Symbols(sides[0]).size() >= 2 && sign && *sign != 0) return compare(sides[1]);
  }
  return Different("an equation against a value");
}

GradeResult Comparer::CompareInequalities(int gold, int answer) {
  // In one variable, and for sets: as sets of numbers. In several: a positive factor may differ.
  const auto pair = [&](int id) {
    return tree_.op(id) == Op::kRelation && tree_.args(id).size() == 2 &&
           tree_[id].text.find_first_of("<>lgn") == 0;
  };
  if (!pair(gold) || !pair(answer) || (tree_.Symbols(gold).size() < 2 && tree_.Symbols(answer).size() < 2)) {
    GradeResult result = CompareRegions(work_, gold, answer);
    const bool mixed = IsRegion(work_, gold) != IsRegion(work_, answer);
    const int other = IsRegion(work_, gold) ? answer : gold;
    const bool set_like = tree_.op(other) == Op::kSequence;
    if (result.outcome == Outcome::kUndecided && mixed && !set_like)
      return Different("a set of numbers against what is none");
    return result;
  }
  const auto upward = [&](int id) {
    // f > 0 or f >= 0
    const Node node = tree_[id];
    const bool flip = node.text == "<" || node.text == "l";
    const int left = node.args[flip ? 1 : 0], right = node.args[flip ? 0 : 1];
    return tree_.Make(Op::kAdd, {left, tree_.Make(Op::kNeg, {right})});
  };
  const auto strict = [&](int id) { return tree_[id].text == "<" || tree_[id].text == ">"; };
  const auto unequal = [&](int id) { return tree_[id].text == "n"; };
  if (strict(gold) != strict(answer) || unequal(gold) != unequal(answer))
    return Different("a strict against a weak inequality");
  const std::optional<bool> same = Proportional(work_, upward(gold), upward(answer), !unequal(gold));
  if (!same) return Undecided("inequalities that could not be compared");
  return *same ? Equal("the same inequality up to a positive factor") : Different("different inequalities");
}

}  // namespace moebius::math
